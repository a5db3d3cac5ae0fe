"""`python -m mace_exp.convert their.yaml`: the experiment file that does the same here.

Reads a configuration of the published implementation by the names of its keys and prints a file for
conf/experiment/. What has no counterpart is named in comments at its end, and so are unknown keys.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mace_exp.command import run_command
from mace_exp.concepts import Kind, slugify
from mace_exp.config import CONF

NAME = "python -m mace_exp.convert"

NUMBERS = {
    "rank": ("lora.rank", int),
    "learning_rate": ("lora.learning_rate", float),
    "max_train_steps": ("lora.steps", int),
    "train_batch_size": ("lora.batch_size", int),
    "adam_weight_decay": ("lora.weight_decay", float),
    "max_grad_norm": ("lora.max_grad_norm", float),
    "seed": ("seed", int),
}
SWITCHES = {
    "use_pooler": "lora.end_of_text",
    "importance_sampling": "lora.importance_sampling",
    "train_seperate": "lora.per_concept",
    "gradient_checkpointing": "lora.gradient_checkpointing",
    "all_words": "cfr.all_words",
}
"""Keys that mean the same here under another name."""
FIXED = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
}
"""What is not a key here: left out silently where it has the value that training has."""
WITHOUT_COUNTERPART = {
    "use_gpt": "prompts come out of the project's own templates; prompts=llm asks a language model",
    "augment": "drawn images are taken whole; images=folder crops and flips with its masks",
    "with_prior_preservation": "prior_images=folder takes class images",
    "prior_loss_weight": "prior_images.weight, where prior_images=folder takes class images",
    "preserve_prompt": "prior_images.prompt, where prior_images=folder takes class images",
    "max_memory": "not needed: memory does not grow with the number of concepts",
    "output_dir": "a run makes its own folder; another by hydra.run.dir=...",
}
MODELS = {
    "CompVis/stable-diffusion-v1-4": "sd_v1_4",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd_v1_5",
    "runwayml/stable-diffusion-v1-5": "sd_v1_5",
    "stabilityai/stable-diffusion-2-1-base": "sd_v2_1_base",
}
PEOPLE = ("person", "man", "woman", "celebrity", "boy", "girl")
"""Anchors that tell a person, whom the published configurations list as an object."""


@dataclass
class Experiment:
    """An experiment file in the making: options by group, values by key, and remarks."""

    options: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """Return the file; `name` is that of the option."""
        lines = ["# @package _global_", f"# python -m mace_exp experiment={name}"]
        lines += [f"# Converted by {NAME}; what it had to leave out stands at the end."]
        lines += ["defaults:", *(f"  - override /{k}: {v}" for k, v in self.options.items()), ""]
        body = yaml.safe_dump(_nested(self.values), sort_keys=False, allow_unicode=True)
        remarks = [f"#   {remark}" for remark in self.remarks]
        return "\n".join(
            [
                *lines,
                body.rstrip(),
                *(["", "# Left out or changed:"] if remarks else []),
                *remarks,
                "",
            ]
        )


def convert(theirs: Mapping[str, Any]) -> Experiment:
    """Return the experiment that does here what a published configuration does there.

    Raises:
        ValueError: no concepts, another number of anchors, or a value of a wrong type.
    """
    made, known = Experiment(), set(NUMBERS) | set(SWITCHES) | set(FIXED) | set(WITHOUT_COUNTERPART)
    for convert_part, keys in _PARTS:
        convert_part(made, theirs)
        known |= set(keys)
    for key, (ours, kind) in NUMBERS.items():
        if theirs.get(key) is not None:
            made.values[ours] = _number(theirs, key, kind)
    for key, ours in SWITCHES.items():
        if theirs.get(key) is not None:
            made.values[ours] = _switch(theirs, key)
    for key, value in theirs.items():
        if key in WITHOUT_COUNTERPART and value not in (None, False):
            made.remarks.append(f"{key} = {value}: {WITHOUT_COUNTERPART[key]}")
        elif key in FIXED and value is not None and not _same(value, FIXED[key]):
            made.remarks.append(f"{key} = {value}: always {FIXED[key]} here")
        elif key not in known:
            made.remarks.append(f"{key} = {value}: unknown")
    return made


def _model(made: Experiment, theirs: Mapping[str, Any]) -> None:
    source = theirs.get("pretrained_model_name_or_path") or "CompVis/stable-diffusion-v1-4"
    made.options["model"] = MODELS.get(str(source), "path")
    if made.options["model"] == "path":
        made.values["model.source"] = str(source)
        made.values["model.allow_download"] = True


def _concepts(made: Experiment, theirs: Mapping[str, Any]) -> None:
    pairs = list(_pairs(theirs.get("multi_concept")))
    if not pairs:
        raise ValueError("multi_concept names nothing: it holds [name, kind] for every concept")
    names = [_spelled(name) for name, _ in pairs]
    anchors = _anchors(theirs.get("mapping_concept"), len(names))
    kinds = [
        _kind(name, kind, anchor)
        for name, (_, kind), anchor in zip(names, pairs, anchors, strict=True)
    ]
    made.options["concepts"] = "custom"
    made.values |= {"concepts.kind": kinds[0].name, "concepts.names": names}
    others = {n: k.name for n, k in zip(names, kinds, strict=True) if k is not kinds[0]}
    if others:
        made.values["concepts.kinds"] = others
    by_kind = {kind: anchor for kind, anchor in zip(kinds[::-1], anchors[::-1], strict=True)}
    made.values |= {f"anchors.{kind.name}": anchor for kind, anchor in by_kind.items() if anchor}
    own = {
        name: anchor
        for name, kind, anchor in zip(names, kinds, anchors, strict=True)
        if anchor and anchor != by_kind[kind]
    }
    if own:
        made.values["anchors.per_concept"] = own


def _masks(made: Experiment, theirs: Mapping[str, Any]) -> None:
    if theirs.get("use_gsam_mask") is None:
        return
    wanted = _switch(theirs, "use_gsam_mask")
    made.options["masks"] = "grounded_sam" if wanted else "none"
    if wanted:
        made.values["masks.allow_download"] = True
        made.remarks.append(
            "use_gsam_mask = True: Grounding DINO and SAM are fetched from the hub; folders of "
            "both by masks.detector=... masks.segmenter=..., no other model by masks=attention"
        )


def _prompts(made: Experiment, theirs: Mapping[str, Any]) -> None:
    given = {
        key: theirs[key] for key in ("prompt_len", "aug_length") if theirs.get(key) is not None
    }
    if given:
        made.values["prompts.count"] = _number(given, next(iter(given)), int)
    if len(set(given.values())) > 1:
        made.remarks.append(f"aug_length = {given['aug_length']}: prompt_len sets the only number")


def _weights(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Closeness and preservation: in refinement the published code scales its caches twice."""
    if theirs.get("lamb") is not None:
        closeness = _number(theirs, "lamb", float)
        made.values |= {"cfr.closeness": closeness, "fusion.closeness": closeness}
    train = _number({"train_preserve_scale": 0} | dict(theirs), "train_preserve_scale", float)
    fuse = _number({"fuse_preserve_scale": 0} | dict(theirs), "fuse_preserve_scale", float)
    ratio = _number({"preserve_weight": 0} | dict(theirs), "preserve_weight", float)
    prior = theirs.get("prior_preservation_cache_path", True) not in (None, False, "")
    domain = theirs.get("domain_preservation_cache_path", True) not in (None, False, "")
    for group, scale in (("cfr", train**2), ("fusion", fuse)):
        made.values[f"{group}.prior_weight"] = _rounded(scale * prior)
        made.values[f"{group}.domain_weight"] = _rounded(scale * ratio * domain)
    weighed = {key: made.values[key] for key in made.values if key.endswith("_weight")}
    by_domain = any(value for key, value in weighed.items() if "domain" in key)
    made.options["kept"] = _kept(made.values["concepts.kind"], by_domain)
    made.options["preservation"] = "published" if any(weighed.values()) else "none"
    if any(weighed.values()):
        made.remarks.append(
            "preservation caches: captions of our own stand for them; imported by python -m "
            "mace_exp.preservation import they are taken by preservation=cached "
            "preservation.prior.cache=... preservation.domain.cache=..."
        )


def _size(made: Experiment, theirs: Mapping[str, Any]) -> None:
    if theirs.get("resolution") is not None:
        pixels = _number(theirs, "resolution", int)
        made.values |= {"sampling.height": pixels, "sampling.width": pixels}


_PARTS = (
    (_model, ("pretrained_model_name_or_path",)),
    (_concepts, ("multi_concept", "mapping_concept")),
    (_masks, ("use_gsam_mask",)),
    (_prompts, ("prompt_len", "aug_length")),
    (
        _weights,
        (
            *("lamb", "train_preserve_scale", "fuse_preserve_scale", "preserve_weight"),
            *("prior_preservation_cache_path", "domain_preservation_cache_path"),
        ),
    ),
    (_size, ("resolution",)),
)
"""What takes more than another name, in the order of the file, each with the keys that it reads."""


def _pairs(node: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, kind) of every concept, however deep the lists are nested."""
    if isinstance(node, str):
        yield node, "object"
    elif isinstance(node, Sequence):
        if len(node) == 2 and isinstance(node[0], str) and node[1] in ("object", "style"):
            yield node[0], node[1]
        else:
            for each in node:
                yield from _pairs(each)


def _anchors(given: Any, count: int) -> list[str]:
    anchors = [given] if isinstance(given, str) else list(given or [""])
    if len(anchors) == 1:
        anchors *= count
    if len(anchors) != count:
        raise ValueError(f"mapping_concept has {len(anchors)} anchors for {count} concepts")
    return [str(anchor) for anchor in anchors]


def _spelled(name: str) -> str:
    """Return a name as our lists spell it, or with spaces for the hyphens of file names."""
    return _listed("concepts").get(slugify(name), " ".join(name.replace("-", " ").split()))


def _kind(name: str, kind: str, anchor: str) -> Kind:
    """Tell people, objects and explicit words apart: a published configuration does not."""
    if kind == "style":
        return Kind.style
    if anchor == "a person wearing clothes" or slugify(name) in _listed("concepts", "explicit"):
        return Kind.explicit
    listed = slugify(name) in _listed("concepts", "celebrity")
    person = listed or anchor.lower().split(" ")[-1] in PEOPLE
    return Kind.person if person else Kind.object


@cache
def _listed(group: str, family: str = "") -> dict[str, str]:
    """Return the names in our lists by slug."""
    files = sorted((CONF / group).glob(f"{family}*.yaml"))
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    lists = [each["names"] for each in contents if isinstance(each.get("names"), list)]
    return {slugify(name): name for names in lists for name in names}


def _kept(kind: str, by_domain: bool) -> str:
    """Return the option of `kept` whose names a run of this kind preserves and measures."""
    if kind == "style":
        return "artist_100"
    return "celebrity_100" if kind == "person" or by_domain else "object_10"


def _number(theirs: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a number. YAML reads 1e-5 as text: hence through a string."""
    try:
        value = float(str(theirs[key]))
        if kind is int and value != int(value):
            raise ValueError
        return kind(value)
    except ValueError:
        raise ValueError(
            f"{key} = {theirs[key]!r} is no {'whole ' * (kind is int)}number"
        ) from None


def _switch(theirs: Mapping[str, Any], key: str) -> bool:
    if not isinstance(theirs[key], bool):
        raise ValueError(f"{key} = {theirs[key]!r} is neither true nor false")
    return theirs[key]


def _same(value: Any, fixed: Any) -> bool:
    return str(value) == fixed if isinstance(fixed, str) else float(str(value)) == fixed


def _rounded(value: float) -> float:
    """Return a product without the last digits that binary fractions leave."""
    return float(f"{value:.12g}")


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"lora": {"rank": 1}} of {"lora.rank": 1}, groups together."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        place = nested.setdefault(group, {}) if group else nested
        place[name] = value
    return nested


def read(path: Path) -> Mapping[str, Any]:
    """Return the keys of a file, which may stand under one common name.

    Raises:
        ValueError: no such file, or one that holds no keys.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} can't be read as YAML: {error}") from error
    if isinstance(content, dict) and len(content) == 1:
        [inner] = content.values()
        content = inner if isinstance(inner, dict) else content
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no configuration: it must be a mapping of keys to values")
    return content


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if it refuses."""
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="their.yaml")
    file = parser.parse_args(arguments).file

    def command() -> None:
        sys.stdout.write(convert(read(file)).text(slugify(file.stem).replace("-", "_")))

    return run_command(NAME, command)


if __name__ == "__main__":
    sys.exit(main())
