"""The page that compares runs on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.evaluation.most_different import PicturePair
from mace_exp.evaluation.paired import OVERALL, RATES, ConceptDifference, Difference
from mace_exp.report import formatting
from mace_exp.report.jobs import REDUNDANT_SETTINGS, job_settings, setting_text
from mace_exp.report.metrics_view import part_title
from mace_exp.report.page import render, save
from mace_exp.report.pictures import Thumbnails
from mace_exp.report.read_run import image_in

NO_RESULT = ("tracking", "cache_dir")
"""Beginnings of keys that change no result."""
PICTURE_BYTES = 1_500_000  # base64 bytes of all pictures


@dataclass(frozen=True)
class Comparison:
    """What one run differs in from the first: `pictures` by part, the farthest apart first, and
    `settings` with the values of both."""

    first: Path
    second: Path
    names: tuple[str, str]
    differences: Sequence[Difference]
    concepts: Sequence[ConceptDifference]
    pictures: Mapping[str, Sequence[PicturePair]]
    settings: Sequence[tuple[str, str, str]] = ()

    def facts(self) -> dict[str, Any]:
        """Return the content of compare.json for this pair of runs."""
        return {
            "first": str(self.first),
            "second": str(self.second),
            "settings": {key: values for key, *values in self.settings},
            "differences": [vars(each) for each in self.differences],
            "concepts": [vars(each) for each in self.concepts],
            "pictures": [
                {
                    **vars(each.prompt),
                    "first": f"samples/after/{each.rows[0]:04d}.png",
                    "second": f"samples/after/{each.rows[1]:04d}.png",
                    "difference": each.difference,
                }
                for pairs in self.pictures.values()
                for each in pairs
            ],
        }


def differing_settings(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Return the settings in which two configurations differ, with both values: of those that
    follow one another (interpolated weights) the first, of a group with another option in each the
    keys that both options have."""
    both = [job_settings(each) for each in (first, second)]
    found: dict[tuple[str, ...], str] = {}
    for key in dict.fromkeys(key for each in both for key in each) if all(both) else ():
        values = [formatting.setting(each.get(key)) for each in both]
        if values[0] != values[1] and _tells(key, both):
            found.setdefault((key.rpartition(".")[2], *values), key)
    return [
        (key, setting_text(both[0].get(key)), setting_text(both[1].get(key)))
        for key in found.values()
    ]


def _tells(key: str, both: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a key that differs is one of a result, and not only one option's."""
    if key in REDUNDANT_SETTINGS or key.startswith(NO_RESULT):
        return False
    options = {str(each.get(key.partition(".")[0])) for each in both}
    return len(options) == 1 or all(key in each for each in both)


def cells(found: Difference) -> tuple[str, str, str, str]:
    """Return both values, their difference and its interval as text, rates in percent."""
    rate = found.measure in RATES or found.part == OVERALL
    text = formatting.percent if rate else "{:.3f}".format
    signed = formatting.signed_percent if rate else formatting.signed
    ends = f"{signed(found.low)} to {signed(found.high)}"
    return text(found.first), text(found.second), signed(found.difference), ends


def write_comparison(path: Path, comparisons: Sequence[Comparison]) -> Path:
    """Write the page of all comparisons with one first run, and return its path."""
    thumbnails = Thumbnails(PICTURE_BYTES)
    views = [
        {
            "names": each.names,
            "settings": each.settings,
            "rows": [
                (part_title(d.part), d, cells(d), d.low > 0 or d.high < 0)  # zero is left out
                for d in each.differences
            ],
            "pictures": [
                (part_title(part), _shown(each, pairs, thumbnails))
                for part, pairs in each.pictures.items()
            ],
        }
        for each in comparisons
    ]
    return save(path, render("compare", {"views": views, "first": comparisons[0].names[0]}))


def _shown(
    comparison: Comparison, pairs: Sequence[PicturePair], thumbnails: Thumbnails
) -> list[tuple[PicturePair, str | None, str | None]]:
    """Encode pairs of pictures until the budget is used."""
    runs = (comparison.first, comparison.second)
    found = []
    for pair in pairs:
        if thumbnails.spent:
            break
        files = [
            image_in(run / "samples", f"after/{row:04d}.png")
            for run, row in zip(runs, pair.rows, strict=True)
        ]
        one, two = (thumbnails.uri(file) for file in files)
        found.append((pair, one, two))
    return found
