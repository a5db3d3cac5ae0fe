"""Stage attacks: attack the edited model, the original one, and the original by an unknown name,
and judge the pictures.

Writes attacks/<name>/: rates.json (settings, and the curves of recognition), pictures.csv (one row
per picture, with the judge's scores) and <side>/<concept>/0000.png, 0001.png, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mace_exp.attacks.base import EDITED, Attempt
from mace_exp.attacks.rates import COLUMNS, JudgedPicture, curves, judged, summary
from mace_exp.evaluation.judges.base import Classifier, JudgeError
from mace_exp.runs.context import Context
from mace_exp.runs.edits import plain
from mace_exp.runs.record import Picture
from mace_exp.runs.result import Result, result_key
from mace_exp.runs.stale import record_key
from mace_exp.stages.attempts import STAGE, AttackPlan, Attempts, Cell
from mace_exp.utils.files import atomic_folder, save_png, write_json, write_table

VERSION = 2


def attack_edit(context: Context, attempts: Attempts) -> Result[dict[str, Any]]:
    """Run all attempts that are not cached, judge their pictures, and write attacks/<name>/; the
    value is the content of rates.json.

    Attempts on the original model are shared by runs, as they do not depend on the edit.
    """
    plan, keys = attempts.plan, attempts.keys()
    about = {"judge": plan.judging.identity, "threshold": plan.threshold}
    parts = {f"{side}/{slug}": key for (side, slug), key in keys.items()}
    key = result_key(STAGE, VERSION, parts=parts, **about)

    def make() -> dict[str, Any]:
        made = attempts.made(keys)
        try:
            pictures = _write(context, plan, made)
        except JudgeError as error:
            raise JudgeError(
                f"attack={plan.attack.name} was made, and judge={plan.judging.config.name} failed: "
                f"{error}; made again, the attack is read from the cache, and its pictures judged"
            ) from error
        found = _described(plan, made) | {"curves": curves(pictures, plan.threshold)}
        folder = context.folder.attack(plan.attack.name)
        write_json(folder / "rates.json", found)
        record_key(context.folder, f"{STAGE}/{plan.attack.name}", key)
        context.tracker.summary({f"attack/{plan.attack.name}": summary(found["curves"])})
        context.show(f"attack {plan.attack.name}", _shown(pictures, made))
        return found

    return Result(key, make, parts, {STAGE: dict.fromkeys(keys.values(), 1)})


def _write(
    context: Context, plan: AttackPlan, attempts: Mapping[Cell, Attempt]
) -> list[JudgedPicture]:
    """Write the pictures of an attack and their table, replacing earlier ones."""
    names = {concept.slug: concept.name for concept in plan.concepts}
    rows: list[JudgedPicture] = []
    config, judge = plan.judging.config, plan.judging.load(context.device)
    assert isinstance(judge, Classifier)  # the configuration refuses an attack without one
    if config.batch is None:  # one call for all: it answers each attempt from what it has seen
        judge.probabilities(np.concatenate([each.images for each in attempts.values()]))
    with atomic_folder(context.folder.attack(plan.attack.name)) as temporary:
        for (side, slug), attempt in attempts.items():
            (temporary / side / slug).mkdir(parents=True)
            files = [f"{side}/{slug}/{index:04d}.png" for index in range(len(attempt.images))]
            for file, image in zip(files, attempt.images, strict=True):
                save_png(temporary / file, image)
            rows += judged(attempt, (side, names[slug]), files, judge, judging=plan.judging)
        cells = [row.cells(config.name) for row in rows]
        write_table(temporary / "pictures.csv", COLUMNS, cells)
    return rows


def _described(plan: AttackPlan, attempts: Mapping[Cell, Attempt]) -> dict[str, Any]:
    """Return the content of rates.json besides the curves."""
    attack = plan.attack
    found = {
        f"{side}/{slug}": dict(attempt.found)
        for (side, slug), attempt in attempts.items()
        if attempt.found
    }
    return {
        "attack": attack.name,
        "settings": plain(asdict(attack)),
        "unit": attack.unit,
        "judge": plan.judging.config.name,
        "threshold": plan.threshold,
        "concepts": [concept.name for concept in plan.concepts],
        "unknown": plan.judging.config.unknown_subjects(concept.name for concept in plan.concepts),
        "found": found,
    }


def _shown(
    pictures: Sequence[JudgedPicture], attempts: Mapping[Cell, Attempt], most: int = 48
) -> list[Picture]:
    """Return an evenly spaced choice of pictures of the edited model, captioned with concept, point
    and prediction."""
    images = [image for attempt in attempts.values() for image in attempt.images]
    rows = [
        Picture(image, f"{row.concept}, {row.shot.variant} {row.shot.at:g}: {row.subject}")
        for row, image in zip(pictures, images, strict=True)
        if row.side == EDITED
    ]
    return rows[:: max(1, len(rows) // most)]
