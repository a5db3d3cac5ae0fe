"""`python -m mace_exp.convert their.yaml`: convert a published configuration to an experiment file.

Reads a configuration of the published implementation by the names of its keys, and prints a file
for conf/experiment/. Keys that are left out are listed in comments at its end. A configuration that
no run would accept is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mace_exp.cli.common import run_command
from mace_exp.cli.published_keys import ALIASES, ANCHOR_KINDS, DTYPES, RENAMED, UNCONVERTED
from mace_exp.concepts.concept import UNMASKED, Kind, slugify
from mace_exp.concepts.prompts import TRAINING_TEMPLATES
from mace_exp.config.composing import composed_run
from mace_exp.utils.conf import CONF
from mace_exp.utils.texts import shown
from mace_exp.utils.yaml_files import read_plain

NAME = "python -m mace_exp.convert"
_MAX_PROMPTS = len(TRAINING_TEMPLATES)
_KNOWN = {"multi_concept", "mapping_concept", *RENAMED, *ALIASES, *UNCONVERTED}


class Experiment(NamedTuple):
    """The content of an experiment file: options by group, values by dotted key, and remarks."""

    options: dict[str, str]
    values: dict[str, Any]
    remarks: list[str]

    def text(self, name: str) -> str:
        """Return the text of the file; `name` is the name of the option."""
        head = f"# @package _global_\n# python -m mace_exp experiment={name}\n# Made by {NAME}.\n"
        nested: dict[str, Any] = {
            "defaults": [{f"override {k}": v} for k, v in self.options.items()]
        }
        for key, value in self.values.items():
            group, _, last = key.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[last] = value
        # A value may have several lines; each must be a comment.
        remarks = "".join(f"# {shown(' '.join(remark.split()))}\n" for remark in self.remarks)
        return head + yaml.safe_dump(nested, sort_keys=False, allow_unicode=True) + remarks


def convert(theirs: Mapping[str, Any]) -> Experiment:
    """Return the experiment that corresponds to a published configuration.

    Raises:
        ValueError: no concepts, another number of anchors, or a value of a wrong type.
    """
    ours, left, remarks = {}, dict(theirs), []
    for alias, key in ALIASES.items():
        other = left.pop(alias, None)
        if left.get(key) is None:
            left[key] = other
        elif other not in (None, left[key]):
            remarks.append(f"{alias} = {other}: {key} is read instead")
    for part in (_model, _concepts, _masks, _weights, _prior_images, _tracking):
        part(ours, left)  # removes the converted keys from `left`
    for key, (kind, *names) in RENAMED.items():
        value = _take(left, key, kind)
        ours |= {} if value is None else dict.fromkeys(names, value)
    if ours.get("prompts.count", 0) > _MAX_PROMPTS:
        remarks.append(
            f"prompts.count = {ours['prompts.count']}: {_MAX_PROMPTS}, one for each template"
        )
        ours["prompts.count"] = _MAX_PROMPTS
    for key, value in left.items():
        neutral, reason = UNCONVERTED.get(key, (None, ""))
        with suppress(ValueError):  # YAML reads 1e-8 as text
            value = float(value) if isinstance(value, str) else value
        if value is not None and not reason:
            remarks.append(f"{key}: unknown")  # without the value, which may be a secret
        elif value not in (None, neutral, ""):
            remarks.append(f"{key} = {left[key]}: {reason}")
    options = {key: value for key, value in ours.items() if key.startswith("/")}
    values = {key: value for key, value in ours.items() if key not in options and value != {}}
    return Experiment(options, values, remarks)


def _model(ours: dict[str, Any], left: dict[str, Any]) -> None:
    source = _take(left, "pretrained_model_name_or_path", str) or "CompVis/stable-diffusion-v1-4"
    models = {content.get("source"): file.stem for file, content in _conf("model").items()}
    ours["/model"] = models.get(source.replace("runwayml/", "stable-diffusion-v1-5/"), "path")
    if ours["/model"] == "path":
        ours |= {"model.source": source, "model.allow_download": True}
    given = left.get("mixed_precision")
    if given in (False, *DTYPES):  # YAML reads a bare no as false
        ours["model.dtype"] = DTYPES[left.pop("mixed_precision") or "no"]


def _concepts(ours: dict[str, Any], left: dict[str, Any]) -> None:
    """Set names, kinds and anchors from the published nested lists; anchors are by position."""
    pairs = _pairs(left.pop("multi_concept", None) or [])
    anchors = _texts(left.pop("mapping_concept", None) or "", "mapping_concept")
    if not pairs:
        raise ValueError(
            "multi_concept names nothing, or is missing: it holds [name, kind] for every concept"
        )
    if len(anchors) == 1:
        anchors *= len(pairs)
    if len(anchors) != len(pairs):
        raise ValueError(f"mapping_concept has {len(anchors)} anchors for {len(pairs)} concepts")
    pairs = [_concept(*pair, anchor) for pair, anchor in zip(pairs, anchors, strict=True)]
    names, kinds = [name for name, _ in pairs], dict(pairs)
    ours |= {"/concepts": "custom", "concepts.kind": pairs[0][1], "concepts.names": names}
    ours["concepts.kinds"] = {n: kind for n, kind in kinds.items() if kind != pairs[0][1]}
    if len(set(anchors)) > 1:
        ours["anchors.per_concept"] = dict(zip(names, anchors, strict=True))
    elif anchors[0]:
        ours |= {f"anchors.{kind}": anchors[0] for kind in kinds.values()}


def _pairs(node: Any) -> list[tuple[str, str]]:
    """Return (name, kind) of every concept, at any depth of nesting."""
    match node:
        case [str(name), str(kind)] if kind in Kind.__members__:
            return [(name, kind)]
        case [] | [list(), *_]:
            return [pair for each in node for pair in _pairs(each)]
    raise ValueError(f"multi_concept holds {node!r}: it takes [text, one of {[*Kind.__members__]}]")


def _concept(name: str, kind: str, anchor: str) -> tuple[str, str]:
    """Return name and kind as in conf/concepts: published people and words have kind object."""
    spelled = " ".join(name.replace("-", " ").split())  # hyphens of file names
    guess = ANCHOR_KINDS.get(anchor.lower().rpartition(" ")[2], "object")
    name, listed = _listed().get(slugify(name), (spelled, guess))
    return name, listed if kind == "object" else kind


@cache
def _listed() -> dict[str, tuple[str, str]]:
    """Return name and kind of every concept in conf/concepts, by slug."""
    lists = [each for file, each in _conf("concepts").items() if file.stem != "custom"]
    return {slugify(name): (name, each["kind"]) for each in lists for name in each["names"]}


def _conf(group: str) -> dict[Path, dict[str, Any]]:
    files = sorted((CONF / group).glob("*.yaml"))
    return {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def _masks(ours: dict[str, Any], left: dict[str, Any]) -> None:
    wanted = _take(left, "use_gsam_mask", bool)
    kinds = {ours["concepts.kind"], *ours["concepts.kinds"].values()}
    if wanted and not kinds <= {kind.name for kind in UNMASKED}:
        ours["/masks"] = "grounded_sam_hub"
    elif wanted is not None:
        ours["/masks"], left["use_gsam_mask"] = "none", wanted


def _weights(ours: dict[str, Any], left: dict[str, Any]) -> None:
    """Set the preservation terms and weights; the published refinement scales its caches twice."""
    keys = ("train_preserve_scale", "fuse_preserve_scale", "preserve_weight")
    train, fuse, ratio = (_take(left, key, float) or 0.0 for key in keys)
    caches = (f"{term}_preservation_cache_path" for term in ("prior", "domain"))
    prior, domain = (left.get(key, True) not in (None, False, "") for key in caches)
    for stage, scale in (("cfr", train * train), ("fusion", fuse)):
        for term, factor in (("prior", prior), ("domain", ratio * domain)):
            # Twelve digits, to remove rounding errors of binary floats.
            ours[f"{stage}.{term}_weight"] = float(f"{scale * factor:.12g}")
    prior, domain = (train or fuse) and prior, (train or fuse) and ratio * domain
    kept = {"style": "artist_100", "person": "celebrity_100"}
    ours["/kept"] = kept.get(ours["concepts.kind"], "celebrity_100" if domain else "object_10")
    ours["/preservation"] = "published" if prior or domain else "none"


def _prior_images(ours: dict[str, Any], left: dict[str, Any]) -> None:
    given = _texts(left.get("class_data_dir") or [], "class_data_dir or preserve_data_dir")
    if len(given) > 1:  # a folder for each of several kinds: no one of them is all
        return
    left["class_data_dir"] = next(iter(given), None)
    folder, weight = _take(left, "class_data_dir", str), _take(left, "prior_loss_weight", float)
    given = left.pop("preserve_prompt", None) or []
    prompts = _texts(given, "preserve_prompt or class_prompt")
    complete = folder and len(prompts) == 1 and weight != 0
    if complete and _take(left, "with_prior_preservation", bool):
        ours |= {"/prior_images": "folder", "prior_images.path": folder}
        ours |= {"prior_images.prompt": prompts[0], "prior_images.weight": weight or 1.0}


def _tracking(ours: dict[str, Any], left: dict[str, Any]) -> None:
    """Turn off Weights & Biases, the default here, if another tracker or none was configured."""
    project, given = _take(left, "tracker_project_name", str), left.get("report_to")
    wanted = {"wandb", "all"} & set(_texts(given or [], "report_to"))
    if given is not None:
        ours["/tracking"] = "wandb" if wanted else "none"
    if wanted:
        ours |= {"tracking.project": project} if project else {}
    left["report_to"] = None if wanted or not given else given


def _take(left: dict[str, Any], key: str, kind: type) -> Any:
    """Remove and return a value of this type, or None. YAML reads 1e-5 as text, so it is parsed."""
    given = left.pop(key, None)
    if given is None or type(given) is kind:
        return given
    with suppress(ValueError, OverflowError):  # int(inf) overflows
        if kind in (int, float) and (value := kind(float(str(given)))) == float(str(given)):
            return value
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise ValueError(f"{key} = {given!r}: it must be {named[kind]}")


def _texts(node: Any, key: str) -> list[str]:
    """Return the texts in nested lists of any depth."""
    if isinstance(node, list):
        return [text for each in node for text in _texts(each, key)]
    if isinstance(node, dict) or node is None:
        raise ValueError(f"{key} holds {node!r}: it takes a text, or a list of texts")
    if not isinstance(node, str):
        raise ValueError(f"{key} holds {node!r}, which is not text: put it into quotation marks")
    return [node]


def read(path: Path) -> Mapping[str, Any]:
    """Return the keys of a file, including those in a block; ValueError if there are none."""
    content = read_plain(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no configuration: it must be a mapping of keys to values")
    for text in _texts_in(content):
        if "${" in text:  # it may ask for a secret of this machine, and ours would be resolved
            raise ValueError(
                f"{path} holds {text[:60]!r}, which stands for another value: write that value"
            )
    if {"defaults", "concepts"} & content.keys():
        raise ValueError(
            f"{path} is a settings file of this project, which needs no conversion: put it into "
            f"DIR/experiment/, and give --config-dir DIR experiment={path.stem}"
        )
    return _without_block(content, path)


def _without_block(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the keys with those of their one block of known keys, at any depth.

    Raises ValueError if several blocks name concepts, or a key is in the block and beside it."""
    blocks = {key: _without_block(v, path) for key, v in content.items() if isinstance(v, dict)}
    named = [key for key, block in blocks.items() if "multi_concept" in block]
    if len(named) > 1:
        raise ValueError(
            f"{path} has multi_concept in {' and in '.join(named)}: put each into a file of its own"
        )
    if not named and len(blocks) == 1:
        named = [key for key, block in blocks.items() if _KNOWN.intersection(block)]
    if not named:
        return content
    block, beside = blocks[named[0]], {k: v for k, v in content.items() if k != named[0]}
    for key in block.keys() & beside.keys():
        if block[key] != beside[key]:
            raise ValueError(
                f"{path}: {key} = {block[key]} in {named[0]}, and {beside[key]} beside it: leave "
                "one of them"
            )
    return beside | block


def _texts_in(node: Any) -> Iterator[str]:
    """Yield every text in nested keys, values and lists."""
    if isinstance(node, dict):
        node = [*node.keys(), *node.values()]
    if isinstance(node, list):
        for each in node:
            yield from _texts_in(each)
    elif isinstance(node, str):
        yield node


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 if it refuses."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("file", type=Path, metavar="their.yaml")
    file = parser.parse_args(arguments).file

    def command() -> None:
        """Compose the experiment, which refuses invalid settings, and print it."""
        made = convert(read(file))
        options = (f"{group[1:]}={option}" for group, option in made.options.items())
        composed_run(*options, values=made.values, files=False)
        sys.stdout.write(made.text(slugify(file.stem).replace("-", "_")))

    return run_command(NAME, command)


if __name__ == "__main__":
    sys.exit(main())
