"""Check the files of a diffusers folder: is it a complete text-to-image model?

No heavy import; of weight files only the headers are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mace_exp.models.assumptions import (
    AUTOENCODER,
    DENOISER,
    FAMILIES,
    TEXT_ENCODERS,
    check_autoencoder,
    check_denoiser,
    check_family,
    check_schedule,
    check_widths,
)
from mace_exp.models.weight_files import (
    by_variant,
    check_downloaded,
    check_object,
    component_weights,
    read_header,
    read_object,
)
from mace_exp.utils.reading import regular
from mace_exp.utils.trusted import check_no_code

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # remote code is not run
CHECKER = ("safety_checker", "feature_extractor")
OPTIONAL = (*CHECKER, "image_encoder")
ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
WITH_WEIGHTS = (*ENCODERS, "unet", "vae")
_VOCABULARY = ({"tokenizer.json"}, {"vocab.json", "merges.txt"})
"""Sets of files of which a tokenizer needs one."""


def check_folder(
    folder: Path,
    *,
    variant: str | None = None,
    safety_checker: bool = True,
    weights: bool = True,
) -> None:
    """Check that a folder is a whole text-to-image model; with `weights=False`, not its weights.

    Raises:
        ValueError: the message names the file and what to do.
    """
    parts = _parts(folder)
    for each in (*folder.iterdir(), *folder.glob("*/*")):
        if not each.is_dir():
            regular(each)
    check_no_code(folder)
    for name in parts:
        if name not in OPTIONAL and not (folder / name).is_dir():
            raise ValueError(f"{folder} is not a complete pipeline: its folder {name!r} is missing")
    scheduler, unet, vae = (
        read_object(folder / name / file)
        for name, file in (
            ("scheduler", "scheduler_config.json"),
            ("unet", "config.json"),
            ("vae", "config.json"),
        )
    )
    for each in {scheduler.get("_class_name", ""), parts["scheduler"][1]}:
        check_schedule(each, scheduler, folder / "scheduler")
    if parts["unet"][1] != DENOISER:
        raise ValueError(f"{folder / 'unet'} is a {parts['unet'][1]}; supported is {DENOISER}")
    for each in {vae.get("_class_name", AUTOENCODER), parts["vae"][1]}:
        check_autoencoder(each, folder / "vae")
    check_denoiser(unet, vae, folder / "unet")
    encoders = [read_object(folder / each / "config.json") for each in ENCODERS if each in parts]
    check_widths(unet, encoders, str(folder))
    for each in TOKENIZERS:
        if each in parts:
            _check_tokenizer(folder / each)
    if weights:
        for file in weight_files(folder, variant=variant, parts=parts):
            read_header(file)
        if safety_checker:
            _check_checker(folder, parts, variant)


def _check_tokenizer(folder: Path) -> None:
    """Check that a tokenizer has its vocabulary, and that its files are what they are named."""
    if not any(all((folder / file).is_file() for file in files) for files in _VOCABULARY):
        raise ValueError(f"{folder} has no vocabulary: vocab.json and merges.txt")
    for file in sorted(folder.glob("*.json")):
        check_object(file)
    merges = folder / "merges.txt"
    if merges.is_file():
        check_downloaded(merges)


def weight_files(
    folder: Path, *, variant: str | None, parts: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """Yield the weight files that are read. Raises ValueError where a component has none."""
    there = parts if parts is not None else _parts(folder)
    names = [name for name in WITH_WEIGHTS if name in there]
    _check_variant(folder, names, variant)
    for name in names:
        yield from component_weights(folder / name, variant)


def missing_parts(folder: Path) -> list[str]:
    """Return the optional parts that model_index.json names and the folder lacks."""
    index = read_index(folder)
    named = [each for each in OPTIONAL if index.get(each) not in (None, [None, None])]
    return [each for each in named if not (folder / each).is_dir()]


def read_index(folder: Path | None) -> dict[str, Any]:
    """Return model_index.json of a folder ({} for None).

    Raises:
        ValueError: it can't be read, or is missing: the message says what the folder holds instead.
    """
    if folder is None:
        return {}
    file = folder / "model_index.json"
    if not file.exists():
        raise ValueError(
            f"{folder} is not a diffusers pipeline: {file.name} is missing. {_what_it_is(folder)}"
        )
    try:
        return read_object(file)
    except ValueError as error:
        raise ValueError(f"{folder} is not a diffusers pipeline: {error}") from None


def _parts(folder: Path) -> dict[str, Any]:
    """Return the components that a folder's model_index.json names, checked: library and class."""
    index = read_index(folder)
    check_family(str(index.get("_class_name")), folder)
    parts = {
        name: value
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, list) and None not in value
    }
    for name, (library, *_) in parts.items():
        if library not in LIBRARIES:
            raise ValueError(f"{folder} takes {name} from {library!r}: remote code is not run")
    doubled = index["_class_name"] == FAMILIES[1]
    needed = [*WITH_WEIGHTS, *TOKENIZERS, "scheduler"]
    absent = [n for n in needed if n not in parts and (doubled or not n.endswith("_2"))]
    if absent:
        raise ValueError(
            f"{folder} is not a complete pipeline: model_index.json has no {absent[0]}"
        )
    for name in ENCODERS:
        if name in parts and parts[name][1] not in TEXT_ENCODERS:
            raise ValueError(
                f"{folder / name} is a {parts[name][1]}; supported are {', '.join(TEXT_ENCODERS)}"
            )
    return parts


def _check_variant(folder: Path, names: list[str], variant: str | None) -> None:
    """Refuse a variant that no component has. (Single components without it have plain files.)"""
    found = {each for name in names for each in by_variant(folder / name)}
    if variant is not None and found and variant not in found:
        others = sorted(each for each in found if each)
        said = f"but of {', '.join(others)}" if others else "its weights have none"
        raise ValueError(
            f"{folder} has no weights of the variant {variant!r}, {said}: give model.variant="
            f"{others[0] if others else 'null'}"
        )


def _check_checker(folder: Path, parts: Mapping[str, Any], variant: str | None) -> None:
    """Refuse a safety checker that model_index.json names but that can't be loaded."""
    if CHECKER[0] not in parts:
        return
    lacking = [each for each in CHECKER if each in parts and not (folder / each).is_dir()]
    problem = f"{folder / lacking[0]} is missing" if lacking else ""
    try:
        for file in [] if lacking else component_weights(folder / CHECKER[0], variant):
            read_header(file)
    except ValueError as error:
        problem = str(error)
    if problem:
        raise ValueError(
            f"{problem}; model_index.json names it: give model.safety_checker=false "
            "(--no-safety-checker) to go without a safety checker, or add what is missing"
        )


def _what_it_is(folder: Path) -> str:
    """Return what a folder without model_index.json seems to be, and what to give instead."""
    pipelines = sorted(each.parent for each in folder.glob("*/model_index.json"))
    for places in ("snapshots/*", "models--*/snapshots/*"):  # of the hub's cache
        pipelines += sorted(each.parent for each in folder.glob(f"{places}/model_index.json"))
    files = sorted(each.name for each in folder.glob("*.safetensors"))
    if pipelines:
        return f"Did you mean {pipelines[0]}?"
    if (folder.parent / "model_index.json").is_file():
        return f"It is one component of a pipeline: give {folder.parent}"
    if (folder / "edit.safetensors").is_file():
        return (
            "It is the folder of a run: `python -m mace_exp.export RUN TARGET` writes its model as "
            "a pipeline"
        )
    if any("lora" in name.lower() for name in files):
        return (
            "It seems to hold a LoRA, not a model: load its model in diffusers, load_lora_weights, "
            "fuse_lora, unload_lora_weights and save_pretrained, and give that folder"
        )
    if (folder / "config.json").is_file() and any(name.startswith("diffusion") for name in files):
        return "It holds a component alone, as a UNet: give the folder of the whole pipeline"
    if files:
        return (
            f"It holds {files[0]}: a checkpoint is given as a file, with "
            "model.file_config=<a diffusers folder of its family>"
        )
    return "Give the folder that has it"
