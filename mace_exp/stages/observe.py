"""Stage samples: pictures of the model before and after the edit, and what its words attend to."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.prompts import scene_prompts
from mace_exp.config.run_config import Stage
from mace_exp.data.files import digest
from mace_exp.evaluation.schema import SampledEvaluation
from mace_exp.evaluation.suite import (
    ERASED,
    OBJECTS,
    PRESERVED,
    STYLES,
    EvaluationPrompt,
    Subject,
    build_suite,
)
from mace_exp.models.editing import edited_weights
from mace_exp.models.sampling import Samples, sample_batches
from mace_exp.runs.cache import key_of
from mace_exp.runs.provenance import edit_facts
from mace_exp.runs.record import Picture
from mace_exp.stages.attention import draw_attention
from mace_exp.utils.files import atomic_file, atomic_folder, save_png
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import digest_of, holds_tensors

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

COLUMNS = ("index", "part", "concept", "prompt", "seed", "expected", "before", "after")
PREDICTIONS = ("before_prediction", "after_prediction")
KEY = "key.txt"
"""File beside the pictures after the edit: what decided them, see `_key`."""
PIECE = 64
"""Pictures that an entry of the cache holds at most: what a run that is killed may lose."""

Share = Sequence[tuple[list[EvaluationPrompt], Path]]
"""Prompts, with the entry that takes their pictures."""


@dataclass(frozen=True)
class SuiteSamples:
    """Pictures [n, H, W, 3], uint8, of the same prompts and seeds before and after the edit."""

    prompts: list[EvaluationPrompt]
    before: np.ndarray
    after: np.ndarray


def samples(work: Run) -> SuiteSamples | None:
    """Draw the evaluation's prompts with the original model (from the cache where known) and the
    edited one."""
    evaluation = work.config.evaluation
    if not isinstance(evaluation, SampledEvaluation):
        return None
    suite = _suite(work, evaluation)
    before = _original(work, suite)
    if work.does(Stage.samples):
        drawn = SuiteSamples(suite, before, _edited(work, suite))
        _write(work, drawn)
        draw_attention(work, evaluation.attention_maps)
    else:
        drawn = SuiteSamples(suite, before, _read_after(work, suite))
    work.drawn = drawn
    return drawn


def _suite(work: Run, evaluation: SampledEvaluation) -> list[EvaluationPrompt]:
    """Build the suite whole and keep the parts that are asked for: what is erased is left out of
    the others whether or not it is drawn itself."""
    kept = work.config.kept
    subjects = {
        ERASED: [Subject(concept.name, concept.kind) for concept in work.concepts],
        PRESERVED: [Subject(name, Kind.person) for name in kept.people]
        + [Subject(name, Kind.style) for name in kept.artists],
        OBJECTS: [Subject(name, Kind.object) for name in kept.objects],
        STYLES: [Subject(name, Kind.style) for name in kept.styles],
    }
    whole = build_suite(
        subjects,
        scene_prompts(evaluation.images_per_part),
        images_per_part=evaluation.images_per_part,
        templates=evaluation.templates,
        seed=evaluation.seed,
    )
    parts = {part.name for part in evaluation.parts}
    return [each for each in whole if each.part in parts]


def _original(work: Run, suite: Sequence[EvaluationPrompt]) -> np.ndarray:
    """Draw what the cache does not hold; an entry is pictures of one subject."""
    pieces = _pieces(suite)
    inputs = {name: _inputs(work, piece) for name, piece in pieces.items()}
    make = _maker(work, pieces, _draw_pieces) if work.does(Stage.samples) else None
    return _read(work.cache.get_all("samples", inputs, make, suffix=".npy"), len(suite))


def _edited(work: Run, suite: Sequence[EvaluationPrompt]) -> np.ndarray:
    """As `_original`, with the edited weights, which the other ranks are given."""
    edit = {name: weight.detach().cpu() for name, weight in work.edit.items()}
    pieces = _pieces(suite)
    weights = {"weights": digest_of(edit)}
    inputs = {name: _inputs(work, piece) | weights for name, piece in pieces.items()}
    make = _maker(work, pieces, partial(_draw_edited, edit))
    return _read(work.cache.get_all("edited", inputs, make, suffix=".npy"), len(suite))


def _pieces(suite: Sequence[EvaluationPrompt]) -> dict[str, list[EvaluationPrompt]]:
    """Return the prompts of one subject after the other, `PIECE` at most together, by number."""
    subjects = (list(group) for _, group in groupby(suite, key=lambda e: (e.part, e.concept)))
    pieces = [each[i : i + PIECE] for each in subjects for i in range(0, len(each), PIECE)]
    return {str(number): piece for number, piece in enumerate(pieces)}


def _maker(
    work: Run, pieces: Mapping[str, list[EvaluationPrompt]], draw: Callable[[Run, Share], None]
) -> Callable[[Mapping[str, Path]], None]:
    """Return what makes the entries that the cache lacks: `draw` in every rank."""

    def make(missing: Mapping[str, Path]) -> None:
        work.ranks.share(work, draw, [(pieces[name], path) for name, path in missing.items()])

    return make


def _draw_edited(edit: Mapping[str, Tensor], work: Run, share: Share) -> None:
    with edited_weights(work.pipeline.unet, edit):
        _draw_pieces(work, share, label="samples after")


def _draw_pieces(work: Run, share: Share, *, label: str = "samples before") -> None:
    """Draw a rank's share in full batches, and keep each piece in its entry when its last picture
    is drawn: a run that is preempted or killed goes on from there."""
    wanted = [each for piece, _ in share for each in piece]
    waiting, drawn = list(share), []
    with progress(label, len(wanted), "image") as advance:

        def take(batch: Samples) -> None:
            drawn.extend(batch.images)
            while waiting and len(drawn) >= len(waiting[0][0]):
                piece, path = waiting.pop(0)
                _keep(drawn[: len(piece)], path)
                del drawn[: len(piece)]
            advance(len(batch.images))

        texts, seeds = [each.prompt for each in wanted], [each.seed for each in wanted]
        sample_batches(work.pipeline, texts, seeds, work.sampling, take)


def _keep(images: Sequence[np.ndarray], entry: Path) -> None:
    with atomic_file(entry) as temporary:
        np.save(temporary, np.stack(images))


def _read(entries: Mapping[str, Path], count: int) -> np.ndarray:
    """Return all pictures, [count, H, W, 3]: of two thousand large ones there is room for one
    copy."""
    pictures, start = None, 0
    for path in entries.values():
        part = np.load(path)
        if pictures is None:
            pictures = np.empty((count, *part.shape[1:]), part.dtype)
        pictures[start : start + len(part)] = part
        start += len(part)
    assert pictures is not None and start == count
    return pictures


def _inputs(work: Run, group: Sequence[EvaluationPrompt]) -> dict[str, Any]:
    return work.drawn_by() | {
        "pictures": [(each.prompt, each.seed) for each in group],
        "sampling": vars(work.sampling) | {"batch_size": None},
    }


def _write(work: Run, drawn: SuiteSamples) -> None:
    """Write the pictures into the run folder; of the same ones what was measured stays."""
    if not _are_written(work, drawn.prompts):
        work.folder.metrics.unlink(missing_ok=True)
        _write_folder(work, drawn)
    work.show("samples", _pairs(drawn, 48))


def _are_written(work: Run, suite: Sequence[EvaluationPrompt]) -> bool:
    folder = work.folder.samples
    phases = [folder / "before", folder / "after"]
    files = [phase / f"{index:04d}.png" for phase in phases for index in range(len(suite))]
    whole = all(file.exists() for file in (folder / KEY, folder / "prompts.csv", *files))
    return (
        whole
        and (folder / KEY).read_text(encoding="utf-8") == _key(work, suite)
        and holds_tensors(work.folder.edit, work.edit)  # without fusion the file may be another's
    )


def _write_folder(work: Run, drawn: SuiteSamples) -> None:
    with atomic_folder(work.folder.samples) as folder:
        for phase, images in (("before", drawn.before), ("after", drawn.after)):
            (folder / phase).mkdir()
            for index, image in enumerate(images):
                save_png(folder / phase / f"{index:04d}.png", image)
        write_prompts(folder / "prompts.csv", drawn.prompts)
        (folder / KEY).write_text(_key(work, drawn.prompts), encoding="utf-8")


def write_prompts(
    path: Path,
    prompts: Sequence[EvaluationPrompt],
    predictions: tuple[list[str], list[str]] | None = None,
) -> None:
    """Write prompts.csv: a row a pair of pictures, with what the judge said of them once it has."""
    said = predictions or ([""] * len(prompts), [""] * len(prompts))
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, *PREDICTIONS))
        for i, each in enumerate(prompts):
            names = (f"before/{i:04d}.png", f"after/{i:04d}.png")
            row = (i, each.part, each.concept, each.prompt, each.seed, each.expected, *names)
            writer.writerow((*row, said[0][i], said[1][i]))


def _pairs(drawn: SuiteSamples, most: int) -> list[Picture]:
    """Before beside after, an even choice over all parts, the caption with prompt and seed."""
    chosen = range(0, len(drawn.prompts), max(1, len(drawn.prompts) // most))
    return [
        Picture(
            np.concatenate([drawn.before[i], drawn.after[i]], axis=1),
            f"{drawn.prompts[i].part}: {drawn.prompts[i].prompt} (seed {drawn.prompts[i].seed})",
        )
        for i in chosen
    ]


def _read_after(work: Run, suite: Sequence[EvaluationPrompt]) -> np.ndarray:
    """Read the pictures that an earlier command drew. Raises ValueError where they show another
    edit, or other prompts, than this command's."""
    folder = work.folder.samples
    files = [folder / "after" / f"{index:04d}.png" for index in range(len(suite))]
    if not all(file.exists() for file in (folder / KEY, *files)):
        raise ValueError(f"{folder} does not hold this run's pictures: add samples to stages")
    if (folder / KEY).read_text(encoding="utf-8") != _key(work, suite):
        raise ValueError(
            f"{folder} holds pictures of another edit, or of other prompts or sampling, than these "
            "settings ask for: add samples to stages, or take the settings that they were drawn by"
        )
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def _key(work: Run, suite: Sequence[EvaluationPrompt]) -> str:
    """Tell apart what decides pictures after the edit.

    The settings of the edit and the weights that the run folder holds: what is fused again of the
    user's own files may be another edit under the same settings.
    """
    weights = work.folder.edit
    held = {"weights": digest(weights) if weights.exists() else None}
    return key_of(_inputs(work, suite) | edit_facts(work) | held)
