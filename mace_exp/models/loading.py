"""Load Stable Diffusion pipelines from folders, checkpoint files or the hub.

Heavy imports happen only when a model is loaded, so that a wrong source is rejected at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.models.model_folders import ENCODERS, WITH_WEIGHTS, missing_parts, read_index
from mace_exp.models.saving import quiet
from mace_exp.models.schema import ModelConfig
from mace_exp.models.sources import ModelLocation, find_model
from mace_exp.models.weight_files import component_weights, read_header
from mace_exp.utils.trusted import WEIGHTS

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from mace_exp.models.model import Model


def load_pipeline(
    source: str | Path | None,
    *,
    device: str = "auto",
    dtype: str = "float32",
    variant: str | None = None,
    file_config: str | Path | None = None,
    allow_download: bool = False,
    safety_checker: bool = True,
    offload: str = "none",
) -> DiffusionPipeline:
    """Load a pipeline, frozen and in evaluation mode, on `device` (`choose_device`).

    `source`, `variant`, `file_config` and `allow_download` as in `find_model`. The safety checker
    is loaded if the model has one, unless `safety_checker` is false. With `offload="model"`
    components are kept on the CPU and moved to the device in turn, by diffusers'
    `enable_model_cpu_offload`.

    Raises:
        ValueError: as `find_model` and `check_pipeline`; the device does not exist; offload without
            a GPU; a file that can't be loaded; weights that are not finite.
    """
    location = find_model(
        source,
        variant=variant,
        file_config=file_config,
        allow_download=allow_download,
        safety_checker=safety_checker,
    )
    import torch

    from mace_exp.models.devices import choose_device, indexed, warn_of_emulation
    from mace_exp.models.readiness import check_pipeline

    target = choose_device(device)
    if offload == "model" and target.type == "cpu":
        raise ValueError(
            "model.offload = model: the parts of a model take turns on a GPU, and this run is on "
            "the CPU: take model.offload=none"
        )
    warn_of_emulation(target, getattr(torch, dtype))
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    options |= _left_out(location, safety_checker)
    with quiet(), _explained(source):
        if location.file is not None:
            pipeline = _load_file(location, options)
        else:
            pipeline = _load_folder(location, options, variant, allow_download=allow_download)
    _check_complete(pipeline, location, variant)
    check_pipeline(pipeline)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=indexed(target))
    else:
        pipeline.to(target)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    check_finite(pipeline)
    return pipeline


def _check_complete(pipeline: Any, location: ModelLocation, variant: str | None) -> None:
    """Refuse a model for which the files lack weights: the libraries leave them empty, or random.

    Raises:
        ValueError: the message names component and weight.
    """
    where = location.file or location.folder or location.hub_id
    for part in WITH_WEIGHTS:
        module = getattr(pipeline, part, None)
        if module is None:
            continue
        state = module.state_dict()
        missing = {name for name, weight in state.items() if weight.is_meta}
        if part in ENCODERS and location.file is None and location.folder is not None:
            files = component_weights(location.folder / part, variant)
            stored = {_in_any_version(name) for file in files for name in read_header(file)}
            missing |= {name for name in state if _in_any_version(name) not in stored}
        missing = {name for name in missing if not name.endswith("position_ids")}
        if missing:
            raise ValueError(
                f"{where} lacks {len(missing)} weights of its {part}, such as {min(missing)}: it "
                "is not whole, or its config.json is another model's; get it again"
            )


def _in_any_version(name: str) -> str:
    """Return the name of a text encoder's weight without the prefix of transformers 4."""
    return name.removeprefix("text_model.")


def _left_out(location: ModelLocation, safety_checker: bool) -> dict[str, Any]:
    """Return None for each optional part that is not wanted, or that the folder lacks."""
    index = read_index(location.folder)
    has_checker = location.folder is None or "safety_checker" in index
    options: dict[str, Any] = {}
    if location.file is None and location.folder is not None:
        options = dict.fromkeys(missing_parts(location.folder))
    if has_checker and not safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    return options


@contextmanager
def _explained(source: str | Path | None) -> Iterator[None]:
    """Convert whatever the libraries raise about a file to one message; too little memory is the
    machine's fault, not the file's."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries' errors share no base class
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ValueError(
            f"model.source = {source} can't be loaded: {type(error).__name__}: {said}"
        ) from error


def check_finite(pipeline: Any) -> None:
    """Refuse a model with weights that are not finite: it draws black pictures, in which nothing is
    recognised, as if all were erased.

    Raises:
        ValueError: the message names the weight.
    """
    import torch

    for part, module in pipeline.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        for name, weight in module.state_dict().items():
            # A sum takes no memory; it may overflow where no number of it does.
            if not weight.is_floating_point() or weight.sum(dtype=torch.float32).isfinite():
                continue
            if not weight.isfinite().all():
                raise ValueError(
                    f"the model has weights that are not finite, as in {part}.{name}: the file is "
                    f"damaged, or its numbers are too large for {weight.dtype}"
                )


def _load_folder(
    location: ModelLocation, options: dict[str, Any], variant: str | None, *, allow_download: bool
) -> DiffusionPipeline:
    """Load a folder, or a hub id. Only the class of the family knows which parts are optional."""
    import diffusers

    family = read_index(location.folder).get("_class_name", "DiffusionPipeline")
    return getattr(diffusers, family).from_pretrained(
        str(location.folder or location.hub_id),
        variant=variant,
        local_files_only=not (allow_download and location.hub_id),
        **WEIGHTS,
        **options,
    )


def _load_file(location: ModelLocation, options: dict[str, Any]) -> DiffusionPipeline:
    import diffusers

    assert location.folder is not None
    family = read_index(location.folder)["_class_name"]
    return getattr(diffusers, family).from_single_file(
        str(location.file), config=str(location.folder), local_files_only=True, **options
    )


def loaded(model: ModelConfig, device: str = "auto") -> DiffusionPipeline:
    """Load the pipeline of a model configuration. Raises ValueError as `load_pipeline`."""
    return load_pipeline(
        model.source,
        device=device,
        dtype=model.dtype.name,
        variant=model.variant,
        file_config=model.file_config,
        allow_download=model.allow_download,
        safety_checker=model.safety_checker,
        offload=model.offload.name,
    )


def load_model(settings: ModelConfig, device: str = "auto") -> Model:
    """Load a model by its settings. Raises ValueError as `load_pipeline`."""
    from mace_exp.models.model import Model

    return Model(loaded(settings, device), settings.dtype.name)
