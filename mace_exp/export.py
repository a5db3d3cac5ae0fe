"""`python -m mace_exp.export RUN TARGET`: write the erased model of a run as a diffusers folder.

A run saves its edited weights (edit.safetensors), and in erased.json the model that they belong to.
`--weights refined` writes the refined model instead, under which the run's LoRAs were trained:
`pipe.load_lora_weights("RUN/loras/<concept>.safetensors")` fits that one, not the erased model.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.cli.common import run_command
from mace_exp.models.loading import loaded
from mace_exp.models.schema import Device, Precision
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import changed_files, recorded_files
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import read_json

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

NAME = "python -m mace_exp.export"


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
) -> None:
    """Write the pipeline of a run folder, with edited or refined weights, to `target`.

    `weights` is "edit" or "refined". `model` is the original model's present location, if it has
    moved since the run; `dtype` the dtype of the stored weights (None: the run's).

    Raises:
        ValueError: no run folder, no such weights in it, or changed ones, an existing target, or a
            model whose fingerprint is not the run's.
    """
    folder = RunFolder(run)
    facts, file = _facts(folder), {"edit": folder.edit, "refined": folder.refined}[weights]
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: the run has not reached that stage, continue it by resume={run}"
        )
    recorded = recorded_files(folder)
    for name in changed_files(folder, [file.name, folder.facts.name]):
        if name in recorded:  # earlier versions recorded nothing
            raise ValueError(
                f"{run / name} is not what the run wrote: resume={run} writes it again"
            )
    if target.exists():
        raise ValueError(f"{target} exists: name a new folder, or remove it")
    from mace_exp.runs.provenance import model_of

    with naming_setting(str(run)):
        chosen = model_of(facts)
    try:
        pipeline = loaded(chosen if model is None else replace(chosen, source=model), device)
    except ValueError as error:
        raise ValueError(f"{error}; --model gives the location of the original model") from error
    _check_fingerprint(pipeline, facts["model"]["fingerprint"])
    _write(pipeline, file, target, dtype)


def _write(pipeline: DiffusionPipeline, file: Path, target: Path, dtype: str | None) -> None:
    import torch

    from mace_exp.models.editing import apply_edit
    from mace_exp.models.saving import save_pipeline
    from mace_exp.utils.tensors import load_tensors

    edit, _ = load_tensors(file)
    if not edit:
        raise ValueError(f"{file} holds no weights: the model would be the original")
    apply_edit(pipeline, edit)
    save_pipeline(pipeline, target, dtype=None if dtype is None else getattr(torch, dtype))


def _facts(folder: RunFolder) -> dict[str, Any]:
    try:
        facts = read_json(folder.facts)
    except FileNotFoundError:
        raise ValueError(
            f"{folder.facts} is missing: {folder.root} is not the folder of a finished run; "
            f"continue it by python -m mace_exp resume={folder.root}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder.facts} can't be read: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), dict):
        raise ValueError(f"{folder.facts} does not say which model was edited")
    return facts


def _check_fingerprint(pipeline: DiffusionPipeline, wanted: str) -> None:
    from mace_exp.models.fingerprints import fingerprint

    found = fingerprint(pipeline)
    if found != wanted:
        raise ValueError(
            f"the run edited the model {wanted}, this one is {found}: give the location of the "
            "original by --model"
        )


def _export(arguments: argparse.Namespace) -> None:
    export(
        arguments.run,
        arguments.target,
        weights=arguments.weights,
        model=arguments.model,
        dtype=arguments.dtype,
        device=arguments.device,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a new folder")
    parser.add_argument(
        "--weights", choices=("edit", "refined"), default="edit", help="(default: edit)"
    )
    parser.add_argument("--model", metavar="SOURCE", help="present location of the original model")
    parser.add_argument(
        "--dtype", choices=[each.name for each in Precision], help="of the stored weights"
    )
    parser.add_argument("--device", choices=[each.name for each in Device], default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())
