"""`method=uce`: Unified Concept Editing, a closed form on the concept's tokens.

Gandikota et al., WACV 2024, arXiv 2308.14761. With c the state of a token of an erased concept, a
that of its anchor in the same place, and P the second moment of what must survive (equation 7):

    min_W sum scale ||W c - W_l a||^2 + ||(W - W_l) P^(1/2)||^2 + ridge ||W - W_l||^2

Every target is W_l times a state, so that one [d, d] transform serves every projection:
W = W_l T, T = I + scale (S_ac - S_cc) (scale S_cc + P + ridge I)^-1. No image is drawn and nothing
is trained. Here the erased states come from the training sentences (`prompts`), and P is that of
`preservation`, the same for every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.methods.base import Edit, Given, Method, MethodConfig, NoPhases, Settings
from mace_exp.preservation.schema import term_weights
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE

if TYPE_CHECKING:
    from mace_exp.concepts.concept import Concept
    from mace_exp.methods.mace.refinement import PairSums
    from mace_exp.models.text import PromptEncoder
    from mace_exp.runs.context import Context
    from mace_exp.runs.result import Result

VERSION = 1
REMEDY = "method.ridge, preservation.prior_weight or preservation.domain_weight"


class Tokens(Enum):
    """Which states of a sentence are edited."""

    last = "last"  # the last token of the name
    phrase = "phrase"  # all tokens of the name
    onward = "onward"  # the last token of the name and all positions after it
    all = "all"  # all tokens of the name and all positions after it


@dataclass(kw_only=True)
class UceConfig(MethodConfig):
    """Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761)."""

    name: ClassVar[str] = "uce"
    source: ClassVar[str] = "Gandikota et al., WACV 2024, arXiv 2308.14761"

    tokens: Tokens
    erase_scale: Annotated[float, POSITIVE]  # weight of the erased states
    ridge: Annotated[float, NONNEGATIVE]  # weight towards the original weights

    def steps(self) -> tuple[str, ...]:
        return ("uce",)

    def reads(self) -> frozenset[str]:
        return frozenset({"prompts", "preservation"})

    def term_weights(self, settings: Settings) -> dict[str, dict[str, float]]:
        held = settings.preservation
        return {"preservation": term_weights(held, held)}

    def build(self, context: Context, settings: Settings, given: Given) -> Method:
        return Uce(context, self, settings, given)


class Uce(NoPhases):
    """The closed form at work in a run."""

    def __init__(
        self, context: Context, config: UceConfig, settings: Settings, given: Given
    ) -> None:
        super().__init__()
        self.context, self.config, self.settings, self.given = context, config, settings, given

    def check(self) -> None:
        """Refuse a sentence in which the anchor is not found."""
        for concept, sentences in self._sentences():
            for old, new in sentences:
                paired_tokens(self.context.model.encoder, concept, old, new, self.config.tokens)

    def step(self, name: str) -> Result[Any]:
        return {"uce": self.edit}[name]

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited key and value projections."""
        from mace_exp.methods.closed_form import refinement_transform
        from mace_exp.methods.mace.refinement import transformed_weights
        from mace_exp.methods.mace.stages.fusion import unet_edit
        from mace_exp.runs.result import Result, result_key

        held, model = self.given.preservation, self.context.model
        weights = self.config.term_weights(self.settings)["preservation"]
        sentences = {concept.slug: pairs for concept, pairs in self._sentences()}
        key = result_key(
            "uce",
            VERSION,
            sentences=sentences,
            method=asdict(self.config),
            preserved=held.inputs(weights),
            **model.computed_by,
        )

        def make() -> Edit:
            sums = self._sums()
            scale = self.config.erase_scale
            transform = refinement_transform(
                scale * sums.cross,
                scale * sums.gram,
                self.config.ridge,
                preserved=held.weighted(weights),
                remedy=REMEDY,
            )
            return unet_edit(transformed_weights(model.projections, transform))

        return Result(key, make)

    def _sentences(self) -> list[tuple[Concept, list[tuple[str, str]]]]:
        """Return each concept with its sentences and their versions with the anchor."""
        given = self.given
        return [
            (each, [(text, anchor_prompt(text, each)) for text in given.sentences[each.slug]])
            for each in given.concepts
        ]

    def _sums(self) -> PairSums:
        from mace_exp.methods.mace.refinement import PairSums
        from mace_exp.utils.progress import progress

        encoder, pairs = self.context.model.encoder, self._sentences()
        sums = PairSums.zeros(encoder.width)
        with progress("uce", len(pairs), "concept") as advance:
            for concept, sentences in pairs:
                sums = sums + token_sums(encoder, concept, sentences, self.config.tokens)
                advance(1)
        return sums


def token_sums(
    encoder: PromptEncoder,
    concept: Concept,
    sentences: Sequence[tuple[str, str]],
    tokens: Tokens,
) -> PairSums:
    """Return S_ac = sum a c^T and S_cc = sum c c^T over the paired tokens of all sentences, each
    [d, d], float64.

    `sentences` are pairs, with the concept and with its anchor.
    """
    from mace_exp.methods.mace.refinement import PairSums

    sums = PairSums.zeros(encoder.width)
    states = zip(
        encoder.encode([old for old, _ in sentences]),
        encoder.encode([new for _, new in sentences]),
        strict=True,
    )
    for (old, new), (concept_states, anchor_states) in zip(sentences, states, strict=True):
        rows, columns = paired_tokens(encoder, concept, old, new, tokens)
        c, a = concept_states[rows].double().cpu(), anchor_states[columns].double().cpu()
        sums = sums + PairSums(a.mT @ c, c.mT @ c)
    return sums


def paired_tokens(
    encoder: PromptEncoder, concept: Concept, old: str, new: str, tokens: Tokens
) -> tuple[list[int], list[int]]:
    """Return the positions in `old` that are edited, and the one in `new` that each is mapped to.

    Tokens of the name are aligned with those of the anchor from their last ones; where the name is
    longer, its first tokens go to the anchor's first.

    Raises:
        ValueError: the concept or its anchor is not found in its sentence.
    """
    name = encoder.positions(old, concept.name).nonzero().flatten().tolist()
    anchor = encoder.positions(new, concept.anchor).nonzero().flatten().tolist()
    phrase = [(at, anchor[max(0, len(anchor) - len(name) + i)]) for i, at in enumerate(name)]
    count = encoder.context_length - 1 - max(name[-1], anchor[-1])
    after = [(name[-1] + i, anchor[-1] + i) for i in range(1, count + 1)]
    chosen = {
        Tokens.last: phrase[-1:],
        Tokens.phrase: phrase,
        Tokens.onward: phrase[-1:] + after,
        Tokens.all: phrase + after,
    }[tokens]
    return [old_at for old_at, _ in chosen], [new_at for _, new_at in chosen]
