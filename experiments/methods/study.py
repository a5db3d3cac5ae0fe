"""Make the page and the figure of the study from results.csv.

    python -m experiments.methods.study          # needs mace-exp[figures]

Writes study.html, one self-contained file, and methods.svg beside this file. Runs that the study
lacks are listed on the page.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from experiments.methods.figure import PICTURE, draw
from experiments.methods.results import RESULTS, Group, Run, groups, lacking, read_runs, title
from experiments.methods.tables import by_set, tables
from mace_exp.report.page import environment, policy, save, source

HERE = Path(__file__).parent
PAGE, TEMPLATE, PAPERS = HERE / "study.html", HERE / "page.html.jinja", HERE / "papers.csv"
log = logging.getLogger(__name__)


def main() -> None:
    """Write the figure and the page."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runs = read_runs(RESULTS)
    draw(runs, PICTURE)
    save(PAGE, page(runs, PICTURE.read_text(encoding="utf-8")))
    log.info("%s\n%s", PICTURE, PAGE)


def page(runs: Sequence[Run], figure: str) -> str:
    """Return the page as HTML; `figure` is the SVG that it shows."""
    env = environment()
    with PAPERS.open(encoding="utf-8", newline="") as file:
        papers = list(csv.DictReader(file))
    return env.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        by_set=by_set(runs),
        sets=[(_anchor(group), title(group), tables(own)) for group, own in groups(runs).items()],
        lacking=list(lacking(runs)),
        papers=papers,
        figure=Markup(figure[figure.index("<svg") :]),
        style=Markup(source(env, "style.css")),
        script="",
        policy=policy(""),
    )


def _anchor(group: Group) -> str:
    return "-".join(map(str, group))


if __name__ == "__main__":
    main()
