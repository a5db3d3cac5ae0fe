"""`python -m mace_exp.export RUN TARGET`: write the erased model of a run as a folder or a file.

A run saves its edited weights (edit.safetensors), and in erased.json the model that they belong to.
`--weights refined` writes the refined model instead, under which the run's LoRAs were trained:
`pipe.load_lora_weights("RUN/loras/<concept>.safetensors")` fits that one, not the erased model.

--format folder      diffusers folder (the default); TARGET is then a folder, in all others a file
--format edit        the edited weights alone; with --dtype float16 half as large
--format compact     one matrix for all layers and low-rank factors (docs/revise_and_export.md)
--format lora        LoRA of the original model for `pipe.load_lora_weights`, of --rank
--format kohya       the same in the names that ComfyUI, A1111 and sd-scripts read
--format checkpoint  the whole erased model in one file (Stable Diffusion 1.x)
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mace_exp.cli.common import add_file_arguments, file_settings, run_command
from mace_exp.models.loading import loaded
from mace_exp.models.schema import Device, Precision
from mace_exp.runs.edits import edit_facts
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import check_unchanged
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import new_entry

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor

NAME = "python -m mace_exp.export"
log = logging.getLogger("mace_exp.export")
SHAPES = ("folder", "edit", "compact", "lora", "kohya", "checkpoint")


class Shape(NamedTuple):
    """In which form an edit is written, one of `SHAPES`, and the rank of a LoRA."""

    format: str
    rank: int


FOLDER = Shape("folder", 32)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for an error."""
    parsed = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _export(parsed))


def export(
    run: Path,
    target: Path,
    *,
    weights: str = "edit",
    model: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
    files: Mapping[str, Any] | None = None,
    shape: Shape = FOLDER,
) -> None:
    """Write the pipeline of a run folder, with edited or refined weights, to `target`.

    `weights` is "edit" or "refined"; `shape` says in which form they are written. `model` is the
    original model's present location, if it has moved since the run; `files` are keys of `model`
    that say which of its files are read, such as "variant"; `dtype` is the dtype of the stored
    weights (None: the run's).

    Raises:
        ValueError: no run folder, no such weights in it, or changed ones, an existing target, or a
            model whose fingerprint is not the run's; an edit that the form can't hold.
    """
    folder = RunFolder(run)
    facts, file = edit_facts(folder), {"edit": folder.edit, "refined": folder.refined}[weights]
    _check_weights(folder, file)
    if target.exists():
        raise ValueError(f"{target} exists: name a new folder, or remove it")

    from mace_exp.utils.progress import announce_loading  # imports rich

    announce_loading()
    from mace_exp.models.editing import check_edit

    moved: dict[str, Any] = {} if model is None else {"source": model, "variant": None}
    pipeline = _original(run, facts, moved | dict(files or {}), device)
    import torch

    from mace_exp.utils.tensors import load_tensors

    edit, _ = load_tensors(file)
    if not edit:
        raise ValueError(f"{file} holds no weights: the model would be the original")
    with naming_setting(str(file)):
        check_edit(pipeline, edit)
    stored = None if dtype is None else getattr(torch, dtype)
    with new_entry(target) as temporary:
        if shape.format == FOLDER.format:
            _write_folder(pipeline, edit, temporary, stored)
            return
        from mace_exp.cli.edit_files import FORMATS, Work

        stored = stored or next(iter(edit.values())).dtype
        work = Work(pipeline=pipeline, folder=folder, edit=edit, dtype=stored, rank=shape.rank)
        FORMATS[shape.format](work, temporary)
    log.info("%s: %.1f MB", target, target.stat().st_size / 1e6)


def _check_weights(folder: RunFolder, file: Path) -> None:
    """Raise ValueError if a file of weights is missing, or it or erased.json was changed."""
    run = folder.root
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: the run has not reached that stage, continue it by resume={run}"
        )
    check_unchanged(folder, [file.name, folder.facts.name])


def _original(
    run: Path, facts: Mapping[str, Any], changes: Mapping[str, Any], device: str
) -> DiffusionPipeline:
    """Load the model of erased.json with `changes` to its settings; it must be the run's."""
    from mace_exp.models.fingerprints import require_fingerprint
    from mace_exp.runs.edits import model_of

    with naming_setting(str(run)):
        chosen = model_of(facts)
    try:
        pipeline = loaded(replace(chosen, **changes), device)
    except ValueError as error:
        raise ValueError(f"{error}; --model gives the location of the original model") from error
    require_fingerprint(pipeline, facts["model"]["fingerprint"])
    return pipeline


def _write_folder(
    pipeline: DiffusionPipeline,
    edit: Mapping[str, Tensor],
    target: Path,
    dtype: torch.dtype | None,
) -> None:
    from mace_exp.models.editing import apply_edit
    from mace_exp.models.saving import save_pipeline

    apply_edit(pipeline, edit)
    save_pipeline(pipeline, target, dtype=dtype)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    log.info("%s: %.1f MB", target, size / 1e6)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least 1 is allowed")
    return int(text)


def _export(arguments: argparse.Namespace) -> None:
    export(
        arguments.run,
        arguments.target,
        weights=arguments.weights,
        model=arguments.model,
        dtype=arguments.dtype,
        device=arguments.device,
        files=file_settings(arguments),
        shape=Shape(arguments.format, arguments.rank),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a new folder, or file")
    parser.add_argument(
        "--format", choices=SHAPES, default=FOLDER.format, help=f"(default: {FOLDER.format})"
    )
    parser.add_argument(
        "--rank", type=_positive, default=FOLDER.rank, help=f"of a LoRA (default: {FOLDER.rank})"
    )
    parser.add_argument(
        "--weights", choices=("edit", "refined"), default="edit", help="(default: edit)"
    )
    parser.add_argument("--model", metavar="SOURCE", help="present location of the original model")
    add_file_arguments(parser)
    parser.add_argument(
        "--dtype", choices=[each.name for each in Precision], help="of the stored weights"
    )
    parser.add_argument("--device", choices=[each.name for each in Device], default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())
