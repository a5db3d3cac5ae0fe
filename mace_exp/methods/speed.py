"""`method=speed`: SPEED, an edit of the value projections in the null space of the retain set.

Li et al., ICLR 2026, arXiv 2503.07392. The value projections W (`to_v`) of every layer change by
X = W K, so that the state c of an erased concept is mapped to the output of its anchor's state a,
and outputs of other states do not change:

    min_X  mean ||(W + X) c - W a||^2 + ridge ||X||^2   s.t.   X = X P,  X C2 = 0

P projects on the null space of the retained states: the eigenvectors of their second moment whose
eigenvalue is below `null_threshold`. C2 are the state of the start token and three centroids of the
other states of the empty prompt (the unconditional embedding). `null_space.constrained_change` is
the solution.

The retained states are those of the names in `kept`, in the training templates, at the same tokens
as for erased concepts. They are filtered one by one, which second moments of captions do not allow,
so that `preservation` is not read. The retain set is refined per layer:

* influence-based prior filtering (`influence_filter`): only states on which the influence of the
  erasure is at least the mean;
* directed prior augmentation (`augmentations` per state): states with a random shift along the
  direction of the smallest singular value of W; these are filtered by influence as well.

The objective is a mean over the erased states, as in the public code, so that `ridge` does not
depend on the numbers of concepts and sentences. The public code encodes names without sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

from mace_exp.concepts.prompts import TRAINING_TEMPLATES, retained_prompts
from mace_exp.methods.base import Edit, Method, MethodInputs, Settings, unet_edit
from mace_exp.methods.token_pairs import TokenConfig, TokenMethod, name_positions
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, Range

if TYPE_CHECKING:
    from torch import Tensor

    from mace_exp.runs.context import Context
    from mace_exp.runs.result import Result

VERSION = 1
TARGETS = ("to_v",)
NULL_REMEDY = "raise method.null_threshold, or name less in kept"
CENTROIDS = 3
"""Of the states of the empty prompt, besides that of the start token."""


@dataclass(kw_only=True)
class SpeedConfig(TokenConfig):
    """SPEED (Li et al., ICLR 2026, arXiv 2503.07392)."""

    name: ClassVar[str] = "speed"
    source: ClassVar[str] = "Li et al., ICLR 2026, arXiv 2503.07392"

    ridge: Annotated[float, NONNEGATIVE]  # weight of ||X||^2
    null_threshold: Annotated[float, POSITIVE]  # eigenvalues below it span the null space
    invariance_slack: Annotated[float, NONNEGATIVE]  # 0: X C2 = 0 exactly
    retained_sentences: Annotated[int, Range(low=1, high=len(TRAINING_TEMPLATES))]  # per kept name
    influence_filter: bool  # retain only states with at least the mean influence
    augmentations: Annotated[int, NONNEGATIVE]  # per retained state; 0: none

    @property
    def by_layer(self) -> bool:
        """Whether the retain set differs between layers."""
        return self.influence_filter or self.augmentations > 0

    def reads(self) -> frozenset[str]:
        return frozenset({"prompts"})

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        return Speed(context, self, settings, given)


class Speed(TokenMethod[SpeedConfig]):
    """SPEED in a run."""

    def check(self) -> None:
        """Refuse a sentence in which a concept, its anchor or a kept name is not found, and an
        empty retain set."""
        super().check()
        if not self.retained:
            raise ValueError(
                "method=speed edits where no kept name is, and kept names nothing but what is "
                "erased: name something that stays, as in kept.people='[Bruce Lee]'"
            )
        for name, sentences in self.retained.items():
            for sentence in sentences:
                name_positions(self.context.model.encoder, sentence, name, self.config.tokens)

    @cached_property
    def retained(self) -> Mapping[str, Sequence[str]]:
        """Sentences by kept name, without names that contain an erased concept."""
        kept = self.settings.kept
        return retained_prompts(
            kept.people,
            kept.objects,
            kept.artists + kept.styles,
            self.config.retained_sentences,
            avoid=self.given.concepts,
        )

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited value projections."""
        from mace_exp.runs.result import Result, result_key

        key = result_key(
            "speed",
            VERSION,
            sentences=self.pairs.inputs(),
            retained=self.retained,
            method=asdict(self.config),
            seed=self.settings.seed if self.config.augmentations else None,
            **self.context.model.computed_by,
        )
        return Result(key, lambda: unet_edit(self._edited_values()))

    def _edited_values(self) -> dict[str, Tensor]:
        from mace_exp.methods.mace.refinement import transformed_weights
        from mace_exp.models.projections import projection_weights
        from mace_exp.utils.progress import progress

        values = projection_weights(self.context.model.pipeline.unet, TARGETS)
        problem = self._problem()
        edited: dict[str, Tensor] = {}
        with progress("values", len(values), "layer") as advance:
            for name, weight in values.items():
                edited |= transformed_weights({name: weight}, problem.transform(name, weight))
                advance(1)
        return edited

    def _problem(self) -> Problem:
        import torch

        from mace_exp.methods.null_space import centroids

        encoder = self.context.model.encoder
        erased = list(self.pairs.states(encoder, self.config.name))
        c, a = (torch.cat(each) for each in zip(*erased, strict=True))
        empty = encoder.encode([""])[0].cpu().double()
        return Problem(
            config=self.config,
            seed=self.settings.seed,
            cross=a.mT @ c / len(c),
            gram=c.mT @ c / len(c),
            invariants=torch.cat([empty[:1], centroids(empty[1:], CENTROIDS)]).mT,
            retained=self._retained_states(),
        )

    def _retained_states(self) -> Tensor:
        """Return the states of all kept names [n, d], float64, on the CPU."""
        import torch

        encoder = self.context.model.encoder
        rows = [(name, each) for name, sentences in self.retained.items() for each in sentences]
        states = (state for batch in encoder.stream([each for _, each in rows]) for state in batch)
        found = [
            state[name_positions(encoder, sentence, name, self.config.tokens)].cpu()
            for (name, sentence), state in zip(rows, states, strict=True)
        ]
        return torch.cat(found).double()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The inputs of every layer's closed form: means of a c^T and c c^T [d, d], the `invariants` C2
    [d, m] and the `retained` states [n, d], all in float64 on the CPU."""

    config: SpeedConfig
    seed: int
    cross: Tensor
    gram: Tensor
    invariants: Tensor
    retained: Tensor

    def transform(self, name: str, weight: Tensor) -> Tensor:
        """Return I + K [d, d], float64: the edited weight of this layer is W (I + K)."""
        if not self.config.by_layer:
            return self._common
        from mace_exp.models.devices import as_float64

        return self._solve(self._moment(name, as_float64(weight)))

    @cached_property
    def _common(self) -> Tensor:
        return self._solve(self.retained.mT @ self.retained / len(self.retained))

    def _moment(self, name: str, weight: Tensor) -> Tensor:
        """Return the second moment of this layer's retain set, on the device of `weight`."""
        import torch

        from mace_exp.methods.null_space import influence_map, least_direction, retained_moment
        from mace_exp.utils.seeding import generator

        shape = (len(self.retained), self.config.augmentations)
        source = generator(self.seed, "speed", name)
        draws = torch.randn(shape, dtype=torch.float64, generator=source)
        return retained_moment(
            self.retained.to(weight),
            influence_map(weight, self.cross.to(weight), self.gram.to(weight)),
            least_direction(weight),
            draws.to(weight),
            filtered=self.config.influence_filter,
        )

    def _solve(self, moment: Tensor) -> Tensor:
        import torch

        from mace_exp.methods.null_space import constrained_change, null_space

        change = constrained_change(
            self.cross.to(moment),
            self.gram.to(moment),
            null_space(moment, self.config.null_threshold, remedy=NULL_REMEDY),
            invariants=self.invariants.to(moment),
            ridge=self.config.ridge,
            slack=self.config.invariance_slack,
            remedy="method.ridge",
        )
        return torch.eye(len(change)).to(change) + change
