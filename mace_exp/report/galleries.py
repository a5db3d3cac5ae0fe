"""Choose the images of a page within its byte budget: sample pairs, attention, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mace_exp.concepts.spelling import name_key
from mace_exp.report.metrics_view import LOWER_IS_BETTER, PARTS, part_title
from mace_exp.report.pictures import Thumbnails, in_turn
from mace_exp.report.read_run import Overlay, Sample

PICTURE_BYTES = 1_500_000  # base64 bytes for all sample pairs
OVERLAY_BYTES = 300_000  # for attention overlays, and the same for masks
PAIRS = {"erased": 36}
OTHER_PAIRS = 20
FIRST_PAIRS = {"erased": 12}
OTHER_FIRST_PAIRS = 8  # shown at first, the others on demand
OVERLAYS = 80  # ten concepts with eight phases; the same limit for masks


@dataclass(frozen=True)
class Pair:
    """One prompt and seed, with encoded images."""

    sample: Sample
    before: str | None
    after: str | None

    @property
    def state(self) -> str:
        """ "hit" or "miss": whether the image after the edit is as intended; "" if unknown."""
        sample = self.sample
        if not sample.expected or not sample.after_prediction or sample.part not in PARTS:
            return ""
        recognised = name_key(sample.expected) == name_key(sample.after_prediction)
        return "miss" if recognised == (sample.part in LOWER_IS_BETTER) else "hit"


@dataclass(frozen=True)
class Gallery:
    """The shown pairs of one part, out of `total`."""

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
    """Choose pairs of every part, erased first, alternating over concepts."""
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


def gallery(key: str, samples: Sequence[Sample], limit: int, *, budget: int) -> Gallery:
    """Encode pairs until `limit` or the budget (base64 bytes) is reached."""
    thumbnails, pairs = Thumbnails(budget), []
    for sample in in_turn(samples, by="concept"):
        if len(pairs) == limit or thumbnails.spent:
            break
        pair = Pair(sample, thumbnails.uri(sample.before), thumbnails.uri(sample.after))
        if pair.before or pair.after:
            pairs.append(pair)
    return Gallery(key, part_title(key), len(samples), pairs)


@dataclass(frozen=True)
class Strip:
    """Attention to one concept's tokens in one image, by phase, in order of training."""

    concept: str
    caption: str
    pictures: list[tuple[str, str]]


def attention_strips(overlays: Sequence[Overlay]) -> dict[str, Any]:
    """Group overlays into strips: before, during training, after."""
    grouped: dict[tuple[str, str], list[Overlay]] = {}
    for overlay in overlays:
        grouped.setdefault((overlay.concept, overlay.caption), []).append(overlay)
    thumbnails, strips, shown = Thumbnails(OVERLAY_BYTES), [], 0
    for (concept, caption), phases in grouped.items():
        if shown >= OVERLAYS or thumbnails.spent:
            break
        phases.sort(key=lambda o: {"before": 0, "after": 2}.get(o.phase, 1))
        encoded = [(o.phase, thumbnails.uri(o.path)) for o in phases]
        strips.append(Strip(concept, caption, [(phase, uri) for phase, uri in encoded if uri]))
        shown += len(phases)
    return {"strips": strips, "total": len(grouped)} if strips else {}


def mask_groups(overlays: Sequence[Overlay]) -> dict[str, Any]:
    """Group masks by concept, alternating over concepts until the budget is used."""
    thumbnails, groups = Thumbnails(OVERLAY_BYTES, edge=128), {}
    shown = 0
    for overlay in in_turn(overlays, by="concept"):
        uri = None if shown == OVERLAYS or thumbnails.spent else thumbnails.uri(overlay.path)
        if uri:
            groups.setdefault(overlay.concept, []).append((overlay.caption, uri))
            shown += 1
    return {"groups": groups, "shown": shown, "total": len(overlays)} if groups else {}
