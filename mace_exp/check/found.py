"""Facts from the files of a run's settings: model, images, class images. No heavy import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mace_exp.config.options import VARIANTS
from mace_exp.config.preflight import drawn_size
from mace_exp.config.run_config import RunConfig
from mace_exp.data.files import UserImage
from mace_exp.data.folders import images_in, left_out, mask_folder_of, masked_stem, visible
from mace_exp.data.image_captions import captions_beside
from mace_exp.evaluation.judges.base import unknown_concepts
from mace_exp.models.model_folders import ENCODERS, read_index, weight_files
from mace_exp.models.schema import ModelConfig
from mace_exp.models.sources import ModelLocation, hub_cached, location_of, native_size
from mace_exp.models.weight_files import read_header, read_object
from mace_exp.utils.tables import is_table, read_table

MAX_NAMED = 5
"""Most names of left-out files that are listed; all files are counted."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "BOOL": 1}


def settings_found(config: RunConfig) -> dict[str, Any]:
    """Return method, stages, the numbers of concepts by kind and by anchor, and the concepts that
    the judge does not know, with known names that may be meant."""
    concepts = config.concept_list()
    return {
        "method": config.method.name,
        "stages": config.chosen_stages(),
        "concepts": dict(Counter(each.kind.name for each in concepts)),
        "anchors": dict(Counter(each.anchor for each in concepts)),
        "not_judged": dict(unknown_concepts(config.judge, (each.name for each in concepts))),
    }


def model_found(model: ModelConfig) -> dict[str, Any]:
    """Return facts from the files of a model; only name and source if it has to be downloaded.

    Raises ValueError as `find_model`.
    """
    location = location_of(model)
    folder = location.folder or _snapshot(location)
    found: dict[str, Any] = {"name": model.name, "source": model.source or "embedded"}
    if folder is None:
        return found | {"files": "not all in the local cache: the run downloads the rest"}
    unet = read_object(folder / "unet" / "config.json")
    scheduler = read_object(folder / "scheduler" / "scheduler_config.json")
    index = read_index(folder)
    size = native_size(ModelLocation(folder=folder))
    checker = index.get("safety_checker") not in (None, [None, None])
    used = checker and model.safety_checker and location.file is None
    return found | {
        "family": index["_class_name"],
        "weights": _weights(location.file, folder, model.variant),
        "computes_in": model.dtype.name,
        "pictures": None if size is None else f"{size[1]} x {size[0]}",
        "text_states": unet.get("cross_attention_dim"),
        "text_encoders": sum((folder / each).is_dir() for each in ENCODERS),
        "scheduler": scheduler.get("_class_name"),
        "prediction": scheduler.get("prediction_type", "epsilon"),
        "safety_checker": "used" if used else "left out" if checker else "none",
    }


def is_local(model: ModelConfig) -> bool:
    """Return whether a model can be loaded without a download.

    Raises ValueError as `find_model`."""
    location = location_of(model)
    folder = location.folder or _snapshot(location)
    return folder is not None and bool(_weights(location.file, folder, model.variant))


def _snapshot(location: ModelLocation) -> Path | None:
    """Return the folder of a hub id in the local cache, if it has all configuration files."""
    assert location.hub_id is not None
    files = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
    found = [hub_cached(location.hub_id, file) for file in files]
    return found[0].parent if found[0] is not None and None not in found else None


def _weights(file: Path | None, folder: Path, variant: str | None) -> dict[str, Any]:
    """Return the number of weight files that are read, and their bytes by stored dtype."""
    try:
        files = [file] if file else list(weight_files(folder, variant=variant))
    except ValueError:  # of a hub id, the rest is downloaded
        return {}
    stored: Counter[str] = Counter()
    for each in files:
        for tensor in read_header(each).values():
            size = _BYTES.get(tensor.dtype, 1)
            for side in tensor.shape:
                size *= side
            stored[tensor.dtype] += size
    variants = {"variant": variant} if variant else {}
    return {"files": len(files), "bytes_by_type": dict(stored), **variants}


def images_found(config: RunConfig) -> dict[str, Any]:
    """Return the numbers of training images that are drawn or read from the user's folders, and the
    files there that are not read."""
    if "images" not in config.method.reads():
        return {}
    found: dict[str, Any] = {"drawn": 0, "read": 0, "by_suffix": Counter(), "with_a_prompt": 0}
    left: list[Path] = []
    empty: list[Path] = []
    folders: set[Path] = set()
    for concept in config.concept_list():
        settings = config.settings(concept.name)
        files = settings.images.given(concept)
        if settings.images.drawn:
            found["drawn"] += settings.images.count(concept)
        found["read"] += len(files)
        found["by_suffix"].update(each.image.suffix.lower() for each in files)
        found["with_a_prompt"] += sum(each.prompt is not None for each in files)
        left += _left_out(files)
        empty += settings.masks.empty(concept, settings.images, drawn_size(config))
        folders.update(each.image.parent for each in files)
    found["by_suffix"] = dict(found["by_suffix"])
    found["masks"] = dict(Counter(_option("masks", each) for each in _masks(config)))
    prior = config.prior_images.files()
    left += config.prior_images.left_out()
    return found | {
        "class_images": len(prior),
        "left_out": _counted(left),
        "empty_masks": [str(each) for each in empty],
        **_unread_folders(folders),
    }


def captions_found(config: RunConfig) -> dict[str, Any]:
    """Return the numbers of captions of each preservation term, by where they come from; of a table
    also the rows without one."""
    if "preservation" not in config.method.reads():
        return {}
    found = {}
    for name, term in config.preservation.by_name().items():
        counts: dict[str, Any] = {"templates": term.count if term.cache is None else 0}
        counts["given"] = len(term.captions)
        if term.file is not None:
            file, read = Path(term.file), len(term.read_file())
            rows = len(read_table(file).rows) if is_table(file) else read
            counts |= {"file": term.file, "read": read, "without": rows - read}
        if term.cache is not None:
            counts["cache"] = term.cache
        found[name] = counts
    return found


def _left_out(files: Sequence[UserImage]) -> list[Path]:
    """Return the files beside a concept's images that are not read."""
    if not files:
        return []
    folder, images = files[0].image.parent, [each.image for each in files]
    masks = [each for each in images_in(folder) if masked_stem(each) is not None]
    return left_out(folder, [*images, *masks, *captions_beside(folder, images).files])


def _unread_folders(read: set[Path]) -> dict[str, Any]:
    """Return the folders beside those of the concepts that belong to no concept."""
    roots = {each.parent for each in read}
    there = [each for root in roots for each in visible(root) if each.is_dir()]
    masks = {mask_folder_of(each) for each in read}
    unread = sorted(each.name for each in there if each not in read | masks)
    return {"unread_folders": unread} if unread else {}


def _counted(files: Iterable[Path]) -> dict[str, Any]:
    """Return the number of files and their first names, by suffix."""
    kinds: dict[str, list[str]] = {}
    for each in files:
        kinds.setdefault(each.suffix.lower() or "without suffix", []).append(str(each))
    return {
        kind: {"count": len(names), "such_as": names[:MAX_NAMED]}
        for kind, names in sorted(kinds.items())
    }


def _masks(config: RunConfig) -> list[object]:
    """Return the source of masks of each concept."""
    return [config.settings(each.name).masks for each in config.concept_list()]


def _option(group: str, value: object) -> str:
    """Return the name of a group's option that has the schema of `value`."""
    names = {schema: name for name, schema in VARIANTS[group].items()}
    return names.get(type(value), type(value).__name__)
