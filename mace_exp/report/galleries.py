"""Which pictures the page shows: sample pairs, attention overlays, masks, within its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mace_exp.report.metrics_view import PARTS
from mace_exp.report.pictures import Thumbnails, in_turn
from mace_exp.report.read_run import Overlay, Sample

PICTURE_BYTES = 1_500_000  # of base64, over all sample pairs
OVERLAY_BYTES = 300_000  # for the attention overlays, and as much for the masks
PAIRS = {"erased": 36}
OTHER_PAIRS = 20
FIRST_PAIRS = {"erased": 12}
OTHER_FIRST_PAIRS = 8  # are shown at once, the others on demand
OVERLAYS = 80  # ten concepts, eight moments each; and as many masks at most


@dataclass(frozen=True)
class Pair:
    """One prompt and seed, ready to be shown."""

    sample: Sample
    before: str | None
    after: str | None

    @property
    def state(self) -> str:
        """ "hit" and "miss" by what the part asks of the picture after; "" where nothing is."""
        sample = self.sample
        if not sample.expected or not sample.after_prediction or sample.part not in PARTS:
            return ""
        recognised = _same(sample.expected, sample.after_prediction)
        return "miss" if recognised == (sample.part == "erased") else "hit"


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


@dataclass(frozen=True)
class Gallery:
    """The pairs of one part; `total` counts those that the page has no room for, too."""

    key: str
    title: str
    total: int
    pairs: list[Pair] = field(default_factory=list)

    @property
    def first(self) -> list[Pair]:
        return self.pairs[: FIRST_PAIRS.get(self.key, OTHER_FIRST_PAIRS)]

    @property
    def rest(self) -> list[Pair]:
        return self.pairs[FIRST_PAIRS.get(self.key, OTHER_FIRST_PAIRS) :]

    @property
    def misses(self) -> int:
        return sum(pair.state == "miss" for pair in self.pairs)


def galleries(samples: Sequence[Sample]) -> list[Gallery]:
    """Choose pairs of every part, erased first, every concept in its turn."""
    order = [*PARTS, "general"]
    keys = sorted({s.part for s in samples}, key=lambda k: (k not in order, _place(order, k), k))
    shares = {key: PAIRS.get(key, OTHER_PAIRS) for key in keys}
    budgets = {key: PICTURE_BYTES * share // sum(shares.values()) for key, share in shares.items()}
    return [
        gallery(key, [s for s in samples if s.part == key], shares[key], budget=budgets[key])
        for key in keys
    ]


def _place(order: Sequence[str], key: str) -> int:
    return order.index(key) if key in order else len(order)


def gallery(key: str, samples: Sequence[Sample], most: int, *, budget: int) -> Gallery:
    """Encode pairs until `most` or the budget is reached."""
    title = PARTS.get(key, key.replace("_", " ").capitalize())
    thumbnails, pairs = Thumbnails(budget), []
    for sample in in_turn(samples, by="concept"):
        if len(pairs) == most or thumbnails.spent:
            break
        pair = Pair(sample, thumbnails.uri(sample.before), thumbnails.uri(sample.after))
        if pair.before or pair.after:
            pairs.append(pair)
    return Gallery(key, title, len(samples), pairs)


@dataclass(frozen=True)
class Strip:
    """Attention to one concept's words in one picture, phase by phase, in the order of training."""

    concept: str
    caption: str
    pictures: list[tuple[str, str]]


def attention_strips(overlays: Sequence[Overlay]) -> dict[str, Any]:
    """Overlays side by side: before, whatever was drawn during training, after."""
    grouped: dict[tuple[str, str], list[Overlay]] = {}
    for overlay in overlays:
        grouped.setdefault((overlay.concept, overlay.caption), []).append(overlay)
    thumbnails, strips, shown = Thumbnails(OVERLAY_BYTES), [], 0
    for (concept, caption), phases in grouped.items():
        if shown >= OVERLAYS or thumbnails.spent:
            break
        encoded = [(o.phase, thumbnails.uri(o.path)) for o in sorted(phases, key=_phase_place)]
        strips.append(Strip(concept, caption, [(phase, uri) for phase, uri in encoded if uri]))
        shown += len(phases)
    return {"strips": strips, "total": len(grouped)} if strips else {}


def _phase_place(overlay: Overlay) -> int:
    """Before first, after last; `sorted` leaves the others as the table has them."""
    return {"before": 0, "after": 2}.get(overlay.phase, 1)


def mask_groups(overlays: Sequence[Overlay]) -> dict[str, Any]:
    """Masks by concept, as many of each as there is room for."""
    thumbnails, groups = Thumbnails(OVERLAY_BYTES, edge=128), {}
    shown = 0
    for overlay in in_turn(overlays, by="concept"):
        uri = None if shown == OVERLAYS or thumbnails.spent else thumbnails.uri(overlay.path)
        if uri:
            groups.setdefault(overlay.concept, []).append((overlay.caption, uri))
            shown += 1
    return {"groups": groups, "shown": shown, "total": len(overlays)} if groups else {}
