"""Measure how many captions preservation needs until the refined weights stop changing.

Captions are drawn at random, or taken in the order of a run. The weights refined with them are
compared with those refined with all captions. Writes results.csv and convergence.svg beside this
file. Needs the `figures` extra.
"""

import argparse
import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import (
    anchor_prompt,
    domain_captions,
    prior_captions,
    training_prompts,
)
from mace_exp.config.composing import composed_run
from mace_exp.config.run_config import RunConfig
from mace_exp.methods.mace.refinement import PairSums, PromptPair, pair_sums, refine
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import projection_weights
from mace_exp.models.text import PromptEncoder, stable_diffusion_encoder
from mace_exp.preservation.statistics import gram
from mace_exp.utils.seeding import generator

COUNTS = (1, 3, 10, 30, 100, 300, 1000)
SOURCES = ("prior", "domain")
HERE = Path(__file__).parent
log = logging.getLogger(__name__)

Preserved = Callable[[dict[str, Tensor]], Tensor]
"""Maps the mean of each source [d, d] to the weighted sum in the closed form."""


@dataclass(frozen=True)
class Row:
    """Distance to the weights refined with all captions, relative to the size of that edit."""

    concepts: str
    source: str
    order: str
    captions: int
    seed: int
    distance: float


def main() -> None:
    """Measure every set of concepts, write the table and the plot, log the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concepts", nargs="+", default=["celebrity_10", "celebrity_100"])
    parser.add_argument("--seeds", type=int, default=5, help="random draws per size")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load_pipeline(None, device="cpu")
    weights = torch.cat([each.double() for each in projection_weights(pipeline.unet).values()])
    encoder = stable_diffusion_encoder(pipeline)
    rows = [
        row
        for name in arguments.concepts
        for row in measure(name, encoder, weights, arguments.seeds)
    ]
    write(rows)
    plot(rows)
    for key, distances in grouped(rows).items():
        log.info("%-14s %-7s %-8s %5d captions: %.4f", *key, middle(distances))


def measure(name: str, encoder: PromptEncoder, weights: Tensor, seeds: int) -> Iterator[Row]:
    """Yield the distances for one set of concepts, with a subset of one source and all of the
    other. `weights` [sum of d_out, d] are all projections, stacked."""
    config = composed_run(f"concepts={name}")
    concepts, captions = config.concept_list(), all_captions(config)
    states = {source: encoder.encode(texts) for source, texts in captions.items()}
    whole = {source: gram(each) / len(each) for source, each in states.items()}
    sums = concept_sums(config, concepts, encoder)

    def refined(means: dict[str, Tensor]) -> Tensor:
        kept = config.cfr.prior_weight * means["prior"] + config.cfr.domain_weight * means["domain"]
        return weights @ refine(sums, closeness=config.cfr.closeness, preserved=kept)

    target = refined(whole)
    way = (target - weights).norm()
    for source in SOURCES:
        for order, count, seed, chosen in subsets(source, len(captions[source]), seeds):
            mean = gram(states[source][chosen]) / count
            distance = float((refined(whole | {source: mean}) - target).norm() / way)
            yield Row(name, source, order, count, seed, distance)


def all_captions(config: RunConfig) -> dict[str, list[str]]:
    """Return every caption that a run can use, without repetition, in the order of a run."""
    names, kept = config.concepts.names, config.kept
    many = 128 * (len(kept.people) + len(kept.objects) + len(kept.styles) + 4)
    return {
        "prior": list(dict.fromkeys(prior_captions(kept.objects, kept.styles, many, avoid=names))),
        "domain": list(
            dict.fromkeys(domain_captions(kept.people, kept.artists, many, avoid=names))
        ),
    }


def concept_sums(
    config: RunConfig, concepts: Sequence[Concept], encoder: PromptEncoder
) -> PairSums:
    """Return the sums of the refinement over the training prompts of all concepts."""
    sums = PairSums.zeros(encoder.width)
    for concept in concepts:
        prompts = training_prompts(concept, config.prompts.count)
        pairs = [PromptPair(prompt, anchor_prompt(prompt, concept)) for prompt in prompts]
        sums = sums + pair_sums(encoder, pairs, all_words=config.cfr.all_words)
    return sums


def subsets(source: str, size: int, seeds: int) -> Iterator[tuple[str, int, int, Tensor]]:
    """Yield order, count, seed and indices of each subset of `size` captions."""
    for count in (each for each in COUNTS if each < size):
        yield "a run's", count, 0, torch.arange(count)
        for seed in range(seeds):
            random = generator(seed, "preservation size", source, count)
            yield "random", count, seed, torch.randperm(size, generator=random)[:count]


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str, str, int], list[float]]:
    """Return the distances of all seeds, grouped by the other columns."""
    found: dict[tuple[str, str, str, int], list[float]] = {}
    for row in rows:
        key = (row.concepts, row.source, row.order, row.captions)
        found.setdefault(key, []).append(row.distance)
    return found


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return float(torch.tensor(values).median())


def write(rows: Sequence[Row]) -> None:
    """Write results.csv."""
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(list(Row.__annotations__))
        table.writerows([*list(vars(row).values())[:-1], f"{row.distance:.5f}"] for row in rows)


def plot(rows: Sequence[Row]) -> None:
    """Draw the medians with the range over the seeds, one panel per source."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    panels = figure.subplots(1, len(SOURCES), sharey=True)
    names = sorted({row.concepts for row in rows}, key=[row.concepts for row in rows].index)
    for axes, source in zip(panels, SOURCES, strict=True):
        for colour, name in zip(("#0072b2", "#d55e00", "#009e73", "#cc79a7"), names, strict=False):
            for order, style in (("random", "o-"), ("a run's", "s--")):
                lines = {
                    key[3]: values
                    for key, values in grouped(rows).items()
                    if key[:3] == (name, source, order)
                }
                counts = list(lines)
                axes.plot(
                    counts,
                    [middle(lines[count]) for count in counts],
                    style,
                    color=colour,
                    markersize=3,
                    label=f"{name}, {order} order",
                )
                low, high = zip(*((min(each), max(each)) for each in lines.values()), strict=True)
                axes.fill_between(counts, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel=f"{source} captions")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("relative distance")
    panels[0].legend(fontsize=7)
    figure.savefig(HERE / "convergence.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
