"""Erase concepts from a pipeline in memory: the recipe of a run, without the command line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.config.composing import composed_run
from mace_exp.config.run_config import RunConfig
from mace_exp.methods.base import Method
from mace_exp.methods.mace.lora import Lora
from mace_exp.methods.mace.method import Mace
from mace_exp.models.editing import apply_edit, current_weights
from mace_exp.models.latents import native_size
from mace_exp.models.loading import check_finite
from mace_exp.models.model import Model
from mace_exp.models.readiness import check_pipeline
from mace_exp.models.schema import Precision
from mace_exp.recipe import Recipe
from mace_exp.runs.cache import Cache
from mace_exp.runs.claims import claimed
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.tracking import TrackerOptions, open_tracker
from mace_exp.utils.conf import CONF
from mace_exp.utils.progress import silenced

BASE = (
    "concepts=custom",
    "kept=object_10",
    "lora=stable_diffusion",
    "sampling=stable_diffusion",
    "evaluation=none",
    "judge=none",
    "tracking=none",
    "save=weights",
)
"""The default options of `erase`; its arguments and `settings` override them."""
KEPT = {"person": "people", "object": "objects", "style": "artists", "explicit": "objects"}
"""The key of `kept` that receives the names to preserve, by kind."""


@dataclass(frozen=True)
class Erasure:
    """The edit of a pipeline by `erase`.

    `weights` are the edited and `original` the original weights, by component and parameter
    ("unet.down_blocks.0...to_k.weight"); `method` holds the results of its steps, `trained` MACE's
    LoRAs, which are read before a temporary folder is removed.
    """

    pipeline: DiffusionPipeline
    concepts: list[Concept]
    weights: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    method: Method
    trained: Mapping[str, Lora]

    @property
    def transform(self) -> Tensor:
        """T [d, d] of MACE's refinement: the refined weight of every layer is W T."""
        return self._mace.refinement.value

    @property
    def loras(self) -> Mapping[str, Lora]:
        """MACE's LoRAs by concept slug, each on top of the refined weights."""
        return self.trained if self._mace.stages.loras else {}

    @property
    def _mace(self) -> Mace:
        if not isinstance(self.method, Mace):
            raise ValueError("only method=mace makes a refinement and LoRAs")
        return self.method

    def restore(self) -> None:
        """Restore the original weights."""
        apply_edit(self.pipeline, self.original)

    def apply(self) -> None:
        """Apply the edited weights again, after `restore`."""
        apply_edit(self.pipeline, self.weights)


def erase(
    pipeline: DiffusionPipeline,
    concepts: str | Sequence[str],
    *,
    anchor: str | Mapping[str, str] | None = None,
    kind: str = "person",
    preserve: Sequence[str] = (),
    rank: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Erasure:
    """Erase concepts from a Stable Diffusion pipeline, in place, and return the edit.

    `anchor` replaces the concepts: one for all, or by concept; None is the default of the kind.
    `kind` is person, object, style or explicit. `preserve` are names of that kind to preserve.
    `rank` and `steps` apply to every LoRA (None: 1 and 50). `settings` are further settings with
    the key names of the command line: options by group ("method": "uce", "masks": "none") and
    values by key ("lora.learning_rate": 1e-3). `folder` stores edit.safetensors, the LoRAs,
    erased.json and the cache; without it no file remains. All arguments are checked before
    anything is drawn. If an error is raised, the pipeline is unchanged.

    Raises:
        ValueError: a wrong setting, a pipeline that an edit would not reach (another family,
            fused attention, a LoRA that is loaded, sequential offload), a prompt that the model
            can't read, or a closed form without a stable solution; the message says what to do.
    """
    check_pipeline(pipeline)
    names = [concepts] if isinstance(concepts, str) else list(concepts)
    lora = {"lora.rank": rank, "lora.steps": steps}
    values: dict[str, object] = {
        "concepts.names": names,
        "concepts.kind": kind,
        **{key: value for key, value in lora.items() if value is not None},
        "seed": seed,
        **_kept(preserve, kind),
        **_anchors(anchor, kind),
    }
    base = (*BASE, *_no_domain_weight(preserve, kind))
    with _run_folder(folder) as root, silenced(not progress):
        config = _config(base, values, settings or {}, pipeline, root / "cache")
        return _erased(pipeline, config, RunFolder(root))


def _erased(pipeline: DiffusionPipeline, config: RunConfig, folder: RunFolder) -> Erasure:
    model = Model(pipeline, config.model.dtype.name)
    with open_tracker(folder.root, TrackerOptions(mode="disabled")) as tracker:
        context = Context(
            load=lambda: model,
            cache=Cache(Path(config.cache_dir)),
            folder=folder,
            tracker=tracker,
            device=str(pipeline.device),
            makes=frozenset(config.chosen_stages()),
        )
        check_finite(pipeline)
        recipe = Recipe(context, config)
        recipe.check()
        edit = recipe.edit.value.weights  # computes all stages before it
        original = current_weights(pipeline, edit)
        method = recipe.method
        trained: dict[str, Lora] = {}
        if isinstance(method, Mace) and method.stages.loras:
            trained |= method.loras.value.loras
    done = Erasure(pipeline, recipe.concepts, edit, original, method, trained)
    done.apply()
    return done


def _config(
    base: Sequence[str],
    values: Mapping[str, object],
    settings: Mapping[str, object],
    pipeline: DiffusionPipeline,
    cache: Path,
) -> RunConfig:
    """Return the configuration of a command with these settings, for a loaded model.

    `base` are options that nobody gave: a method that does not read them leaves them alone.
    """
    options = [f"{key}={value}" for key, value in settings.items() if _is_group(key)]
    keys = {key: value for key, value in settings.items() if not _is_group(key)}
    height, width = native_size(pipeline)  # its native size is not known from files
    size: dict[str, object] = {"sampling.height": height, "sampling.width": width}
    own = {**size, **values, **keys, "cache_dir": str(cache)}
    config = composed_run(*options, values=own, defaults=base)
    name = getattr(pipeline, "name_or_path", "") or type(pipeline).__name__
    model = replace(
        config.model,
        name=name,
        source=name,
        dtype=_precision(pipeline),
        safety_checker=getattr(pipeline, "safety_checker", None) is not None,
    )
    return replace(config, model=model)


def _precision(pipeline: DiffusionPipeline) -> Precision:
    name = str(pipeline.dtype).removeprefix("torch.")
    if name not in Precision.__members__:
        raise ValueError(f"the pipeline is in {name}: {', '.join(Precision.__members__)} are read")
    return Precision[name]


def _is_group(key: str) -> bool:
    return (CONF / key).is_dir()


def _anchors(anchor: str | Mapping[str, str] | None, kind: str) -> dict[str, object]:
    match anchor:
        case None:
            return {}
        case str():
            return {f"anchors.{kind}": anchor}
    return {"anchors.per_concept": dict(anchor)}


def _kept(preserve: Sequence[str], kind: str) -> dict[str, object]:
    """Return the retain set: people and artists belong to the domain, objects to the prior.

    Raises ValueError for an unknown kind.
    """
    if kind not in KEPT:
        raise ValueError(f"kind = {kind!r} is not allowed: give {', '.join(KEPT)}")
    return {f"kept.{KEPT[kind]}": list(preserve)} if preserve else {}


def _no_domain_weight(preserve: Sequence[str], kind: str) -> tuple[str, ...]:
    """Return the weight 0 of the domain's captions where no name is in them."""
    named = preserve and KEPT[kind] != "objects"
    return () if named else ("preservation.domain_weight=0",)


@contextmanager
def _run_folder(folder: str | Path | None) -> Iterator[Path]:
    """Yield the given folder, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mace_exp-") as temporary:
            yield Path(temporary)
    else:
        with claimed(Path(folder), "folder"):
            yield Path(folder)
