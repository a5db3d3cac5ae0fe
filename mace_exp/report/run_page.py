"""The page of one run: the template's values, by section."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mace_exp.report import charts, formatting
from mace_exp.report.attack_view import read_attacks
from mace_exp.report.detection_view import detection_figures, read_detection_counts
from mace_exp.report.galleries import attention_strips, galleries, mask_groups
from mace_exp.report.metrics_view import (
    WITH_GENERALITY,
    WITH_UNLISTED,
    Estimate,
    PartResult,
    harmonic_mean,
    mean_interval,
    read_overall,
    read_parts,
    unmeasured,
)
from mace_exp.report.page import render, save
from mace_exp.report.read_run import RunContents, read_curves, read_run
from mace_exp.report.training_view import training
from mace_exp.runs.accounting import accounting, entries_text
from mace_exp.runs.record import number

SECTIONS = {
    "result": ("Result", "Accuracies: nothing was measured."),
    "members": ("By concept", "Accuracies of the single concepts."),
    "pictures": ("Pictures", "Sample pictures: none were sampled."),
    "attention": ("Attention", "Attention maps: none were recorded."),
    "masks": ("Masks", "Masks: the run used none, or did not reach that stage."),
    "training": (
        "Training",
        "Training curves: nothing was trained.",
    ),
    "attacks": ("Attacks", ""),  # an attack is asked for, or nothing is lacking
    "time": ("Time and memory", "Stage times: no stage has finished."),
    "settings": ("Settings", "Settings: there is no config.yaml."),
}
_SHOWN_BY = {"result": "parts", "pictures": "galleries", "time": "stages"}
STATUS_KEYS = (
    *("status", "stage", "error", "traceback", "started", "finished"),
    *("command", "versions", "hardware"),
)
FIRST_MEMBERS = 20  # concepts shown per part, the others on demand
DRAWN_MEMBERS = 120  # concepts drawn per part; of more, name and value
MEANS = {
    "harmonic_mean": "Harmonic mean",
    WITH_UNLISTED: "With unlisted people",
    WITH_GENERALITY: "With synonyms",
}
FEW_NAMES = 3  # concepts with overrides named in the headline; more are counted
LONG_SETTING = 72  # characters; longer values are collapsed


def write_report(run_dir: Path) -> Path:
    """Write `report.html` from the files of a run folder, and return its path."""
    run = read_run(run_dir)
    return save(run_dir / "report.html", render("run", run_view(run)))


def run_view(run: RunContents) -> dict[str, Any]:
    """Return all values of the template."""
    content = run_content(run)
    present = {key: bool(content[_SHOWN_BY.get(key, key)]) for key in SECTIONS}
    present["result"] = bool(content["parts"] or content["further"] or content["unmeasured"])
    titles = {key: title for key, (title, _) in SECTIONS.items() if present[key]}
    lacking = [reason for key, (_, reason) in SECTIONS.items() if reason and not present[key]]
    return {**content, "sections": titles, "lacking": lacking}


def run_content(run: RunContents) -> dict[str, Any]:
    """Return the values of the sections; sections without values are left out of the page."""
    parts = read_parts(run.metrics)
    views = [part_view(part) for part in parts]
    return {
        "run": run,
        "status": {**dict.fromkeys(STATUS_KEYS), **run.status},
        "headline": headline(run, parts),
        "parts": views,
        "members": any(part.concepts for part in parts),
        "strip_axis": charts.strip_axis(),
        "kept": next((view for view in views if not view["part"].lower_is_better), None),
        "further": further(run.metrics, parts),
        "unmeasured": unmeasured(run.metrics),
        "detections": detection_figures(run.metrics),
        "detected": read_detection_counts(run.metrics),
        "means": means(run.metrics),
        "neighbours": run.neighbours,
        "galleries": [g for g in galleries(run.samples) if g.pairs],
        "attention": attention_strips(run.attention),
        "masks": mask_groups(run.masks),
        "training": training(read_curves(run.rows)),
        "attacks": read_attacks(run.attacks),
        "stages": stages(run.rows),
        "other_seconds": other_seconds(run.rows),
        "settings": setting_groups(run.config),
        "settings_yaml": yaml.safe_dump(run.config, sort_keys=False) if run.config else "",
        "command": command(run.status),
    }


@dataclass(frozen=True)
class Headline:
    """The first lines of the page."""

    title: str
    names: list[str]
    method: list[str]
    seconds: float | None


def headline(run: RunContents, parts: Sequence[PartResult]) -> Headline:
    """Return the headline: what was erased from which model, and with which settings."""
    names = erased_names(run.config, parts)
    shown = formatting.counted(len(names), concept_kind(run.config))
    what = formatting.listed(names) if 0 < len(names) <= 2 else shown
    verb = "erased from" if run.finished or not run.status else "to be erased from"
    seconds = sum(float(stage["seconds"] or 0) for stage in stages(run.rows)) or None
    title = f"{what} {verb} {model_name(run.config)}"
    return Headline(title, names, method(run.config, names), seconds)


def erased_names(config: Mapping[str, Any], parts: Sequence[PartResult]) -> list[str]:
    """Return the concepts' names from the configuration, or else from the metrics."""
    concepts = config.get("concepts")
    names = concepts.get("names") if isinstance(concepts, Mapping) else concepts
    if isinstance(names, list):
        return [str(name) for name in names]
    return [c.name for part in parts if part.key == "erased" for c in part.concepts]


def concept_kind(config: Mapping[str, Any]) -> str:
    """Return the kind that all concepts share, "" if they differ."""
    concepts = config.get("concepts")
    if not isinstance(concepts, Mapping) or concepts.get("kinds"):
        return ""
    return str(concepts.get("kind", "")).lower()


def model_name(config: Mapping[str, Any]) -> str:
    model = config.get("model")
    found = model if isinstance(model, Mapping) else {"name": model}
    if found.get("name") == "mini":
        return "the embedded model"
    return str(found.get("source") or found.get("name") or "a model")


def method(config: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the method, if it is not the default one, and its most important settings as text."""
    flat, reads = formatting.settings(config), config.get("reads")
    read = (*reads, "seed") if isinstance(reads, list) else {key.partition(".")[0] for key in flat}
    texts = {
        "lora.rank": "LoRA of rank {}",
        "lora.steps": "{} steps",
        "lora.learning_rate": "learning rate {}",
        "preservation.prior_weight": "prior weight {}",
        "preservation.domain_weight": "domain weight {}",
        "cfr.closeness": "closeness {}",
        "seed": "seed {}",
    }
    anchor = flat.get(f"anchors.{concept_kind(config)}")
    options = config.get("options")
    name = options.get("method", "mace") if isinstance(options, Mapping) else "mace"
    lead = [f"method {name}"] if name != "mace" else []
    lead += [f"anchor “{anchor}”"] if anchor and names else []
    general = [
        text.format(formatting.quantity(flat[key]))
        for key, text in texts.items()
        if flat.get(key) is not None and key.partition(".")[0] in read
    ]
    return [*lead, *general, *_overridden_concepts(config)]


def _overridden_concepts(config: Mapping[str, Any]) -> list[str]:
    """Return which concepts have overrides, as text; empty if none."""
    overrides = config.get("overrides")
    if not isinstance(overrides, Mapping) or not overrides:
        return []
    named = formatting.listed([str(name) for name in overrides])
    few = len(overrides) <= FEW_NAMES
    return [f"overrides for {named if few else f'{len(overrides)} concepts'}"]


def part_view(part: PartResult) -> dict[str, Any]:
    """Return a part's row of the result table, and its chart by concept, worst first."""
    members, accuracy = part.worst_first(), part.accuracy
    assert accuracy is not None  # `read_parts` keeps only parts that have one
    tone = "gone" if part.lower_is_better else "kept"
    rest, tail = members[FIRST_MEMBERS:DRAWN_MEMBERS], members[DRAWN_MEMBERS:]
    return {
        "part": part,
        "tone": tone,
        "strip": charts.strip(replace(accuracy, name=part.title), tone),
        "first": charts.intervals(members[:FIRST_MEMBERS], tone) if members else None,
        "rest": charts.intervals(rest, tone) if rest else None,
        "tail": [(each.name, formatting.percent(each.value)) for each in tail],
        "rest_count": len(rest) + len(tail),
        "first_count": min(len(members), FIRST_MEMBERS),
    }


def means(metrics: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Return title, value and interval of each harmonic mean that was measured."""
    found = [(title, key, harmonic_mean(metrics, key)) for key, title in MEANS.items()]
    return [
        (title, value, formatting.interval(*mean_interval(metrics, key)))
        for title, key, value in found
        if value is not None
    ]


def further(metrics: Mapping[str, Any], parts: Sequence[PartResult]) -> list[tuple[str, Estimate]]:
    """Return all other measures with the titles of their parts."""
    of_parts = [(part.title, estimate) for part in parts for estimate in part.further]
    return of_parts + [("All", estimate) for estimate in read_overall(metrics)]


def stages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return seconds and memory per stage, in order; of repeated stages the last run counts.

    `share` is of all stages, `length` that of a bar beside the longest one's, both in percent.
    """
    found = accounting([row for row in rows if row.get("event") == "stage"])["stages"]
    longest = max((each["seconds"] for each in found), default=0.0) or 1.0
    return [
        {
            "name": each["stage"],
            "seconds": each["seconds"],
            "share": 100 * each["share"],
            "length": round(100 * each["seconds"] / longest, 1),
            "reused": bool(each.get("reused")),
            "entries": entries_text(each),
            "memory": each.get("peak_memory_mb"),
            "gpu_memory": each.get("peak_gpu_memory_mb"),
        }
        for each in found
    ]


def other_seconds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the seconds of the last command that are in no stage; None if it has not finished."""
    ends = [row for row in rows if row.get("event") == "summary"]
    return number(ends[-1].get("accounting/other_seconds")) if ends else None


def setting_groups(config: Mapping[str, Any]) -> dict[str, list[tuple[str, str, bool]]]:
    """Return all settings by group: key, value, whether the value is long."""
    groups: dict[str, list[tuple[str, str, bool]]] = {}
    for key, value in formatting.settings(config).items():
        group, _, rest = key.partition(".")
        text = formatting.setting(value)
        if isinstance(value, list) and len(text) > LONG_SETTING:
            text = f"{len(value)}: {text}"
        entry = (rest or group, text, len(text) > LONG_SETTING)
        groups.setdefault(group if rest else "run", []).append(entry)
    return groups


def command(status: Mapping[str, Any]) -> str:
    """Return the command, quoted for a shell; its first entry may contain several words."""
    found = status.get("command")
    if not isinstance(found, list):
        return str(found or "")
    program, *arguments = map(str, found or [""])
    return " ".join(filter(None, (program, shlex.join(arguments))))
