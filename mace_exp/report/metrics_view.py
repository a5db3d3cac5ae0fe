"""Read metrics.json: the parts of the evaluation, with intervals and original values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mace_exp.evaluation.prompts import GENERALITY
from mace_exp.runs.record import number

PARTS = {
    "erased": "Erased",
    "preserved": "Preserved people",
    "unlisted": "Unlisted people",
    "neighbours": "Neighbours",
    "objects": "Objects",
    "styles": "Styles",
    "scenes": "Scenes",
    "synonyms": "Synonyms",
    "wordings": "Other sentences",
    "letter_case": "Other letters",
    "possessives": "Possessives",
    "misspellings": "Misspellings",
}


def part_title(part: str) -> str:
    """Return a part's title in tables."""
    return PARTS.get(part, part.replace("_", " ").capitalize())


WITH_UNLISTED = "harmonic_mean_unlisted"
"""The harmonic mean over erased, kept and unlisted people."""
WITH_GENERALITY = "harmonic_mean_generality"
"""That over erased, kept and synonyms of the erased: the paper's H_o."""
LOWER_IS_BETTER = frozenset({"erased", *GENERALITY})
LOWER_TITLES = frozenset(PARTS[key] for key in LOWER_IS_BETTER)


@dataclass(frozen=True)
class Estimate:
    """A proportion after the edit with its interval, and `original`, that before the edit."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    original: float | None = None

    @property
    def difference(self) -> float | None:
        return None if self.original is None else self.value - self.original

    @property
    def ends(self) -> tuple[float, float] | None:
        """The two ends of the interval, None without one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class PartResult:
    """One part of the evaluation; `concepts` are the estimates of its concepts."""

    key: str
    title: str
    accuracy: Estimate | None
    concepts: list[Estimate]
    further: list[Estimate]

    @property
    def lower_is_better(self) -> bool:
        return self.key in LOWER_IS_BETTER

    def worst_first(self) -> list[Estimate]:
        """Return the concepts' estimates, those farthest from the intended result first."""
        if self.lower_is_better:
            return sorted(self.concepts, key=lambda c: (-c.value, c.name))
        return sorted(self.concepts, key=lambda c: (c.difference or 0.0, c.value, c.name))


def read_estimate(name: str, values: Any) -> Estimate | None:
    """Read {"value", "low", "high", "n", "original"}; None without a value."""
    if not isinstance(values, Mapping):
        return None
    found = {key: number(values.get(key)) for key in ("value", "low", "high", "n", "original")}
    value, count = found.pop("value"), found.pop("n")
    if value is None:
        return None
    return Estimate(name, value, n=None if count is None else int(count), **found)


def read_parts(metrics: Mapping[str, Any]) -> list[PartResult]:
    """Return the parts that have an accuracy, in the order of PARTS, then others."""
    keys = [key for key in PARTS if key in metrics]
    keys += [key for key in metrics if key not in PARTS and _is_part(metrics[key])]
    return [_read_part(key, metrics[key]) for key in keys if _is_part(metrics[key])]


def _is_part(values: Any) -> bool:
    return isinstance(values, Mapping) and read_estimate("", values.get("accuracy")) is not None


def _read_part(key: str, values: Mapping[str, Any]) -> PartResult:
    members = values.get("concepts")
    members = members if isinstance(members, Mapping) else {}
    concepts = [read_estimate(_name(slug, entry), entry) for slug, entry in members.items()]
    others = {k: v for k, v in values.items() if k not in ("accuracy", "concepts")}
    return PartResult(
        key=key,
        title=part_title(key),
        accuracy=read_estimate("accuracy", values.get("accuracy")),
        concepts=[concept for concept in concepts if concept is not None],
        further=list(_further(others)),
    )


def _name(slug: str, entry: Any) -> str:
    return str(entry.get("name", slug)) if isinstance(entry, Mapping) else slug


def _further(values: Mapping[str, Any], prefix: str = "") -> Iterator[Estimate]:
    """Yield every number in nested entries, named by its path."""
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        estimate = read_estimate(name, value)
        plain = number(value)
        if estimate is not None:
            yield estimate
        elif isinstance(value, Mapping):
            yield from _further(value, f"{name}, ")
        elif plain is not None:
            yield Estimate(name, plain)


def read_overall(metrics: Mapping[str, Any]) -> list[Estimate]:
    """Return the numbers outside parts, except the harmonic means (see `harmonic_mean`)."""
    means = ("harmonic_mean", WITH_UNLISTED, WITH_GENERALITY)
    others = {k: v for k, v in metrics.items() if not _is_part(v) and k not in means}
    return list(_further(others))


def harmonic_mean(metrics: Mapping[str, Any], key: str = "harmonic_mean") -> float | None:
    """Return the run's harmonic mean, or that over three sides (`WITH_UNLISTED`), or None."""
    value = metrics.get(key)
    return number(value.get("value") if isinstance(value, Mapping) else value)


def mean_interval(metrics: Mapping[str, Any], key: str) -> tuple[float | None, float | None]:
    """Return the ends of a harmonic mean's interval, None without one."""
    harmonic = metrics.get("harmonic")
    known = harmonic.get("intervals") if isinstance(harmonic, Mapping) else None
    ends = known.get(key) if isinstance(known, Mapping) else None
    if not isinstance(ends, list) or len(ends) != 2:
        return None, None
    return number(ends[0]), number(ends[1])


def unmeasured(metrics: Mapping[str, Any]) -> list[str]:
    """Return the evaluation's explanations of what it could not measure."""
    reasons = metrics.get("missing")
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []
