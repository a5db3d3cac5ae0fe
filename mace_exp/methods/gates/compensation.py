"""Changes that make up for tokens of a name that have no gate.

The text encoder is causal: at the first token of a name its state is the same for everybody who has
that token. Where the retain set has it, no gate can open there, and the denoiser still reads it.
Two constant changes, of the gate of the name's last token and of that of the positions after it,
are fitted so that the cross-attention layers l give for the edited states E(d), at queries of the
anchor's images, what they give for the states A of the sentence with the anchor:

    min_d  mean_l |O_l(E(d)) - O_l(A)|^2 / var O_l(A)  +  RIDGE |d|^2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.methods.gates.attention import AttentionLayer
from mace_exp.methods.gates.fitting import NO_GATES, Gates
from mace_exp.methods.gates.kept import KeptGates, Unit
from mace_exp.methods.gates.neurons import Neurons
from mace_exp.methods.gates.states import (
    AFTER,
    gated_layer,
    layer_states,
    name_prefixes,
)
from mace_exp.models.text import Branch, PromptEncoder
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.progress import progress

Pairs = Sequence[tuple[str, str]]
"""Sentences with a concept and with its anchor."""
SENTENCES = 4
"""Most training sentences of a concept that its changes are fitted on."""
ITERATIONS = 100
RIDGE = 1e-5
"""Of changes in units of the standard deviation of the layer's outputs."""


def compensated(
    gates: Gates,
    encoder: PromptEncoder,
    sentences: Mapping[Concept, Pairs],
    attention: Callable[[Pairs], Sequence[AttentionLayer]],
    *,
    kept: KeptGates = NO_GATES,
) -> Gates:
    """Return the gates with the changes added, and the mismatch (the first term above) without and
    with them of each concept that has such tokens. Gates in `kept` are not changed.

    `attention` gives the layers at queries of images of the anchor in these sentences. The changes
    of a concept do not depend on those of others.

    Raises:
        ValueError: numbers that are not finite.
    """
    movable = _movable_units(gates, encoder, sentences, kept)
    branches = list(gates.branches)
    mismatch = dict(gates.mismatch)
    with progress("gates: compensation", len(movable), "concept") as advance:
        for concept, units in movable.items():
            pairs = sentences[concept]
            places = [[owners.index(unit) for unit in units] for owners in gates.units]
            some = pairs[:: -(-len(pairs) // SENTENCES)]
            states = _EditedStates.of(encoder, some, gates.branches, places)
            with naming_setting(f"method.compensation_images, for {concept.name!r}"):
                changes, before, after = _fit(states, attention(pairs))
            branches = [_moved(*each) for each in zip(branches, places, changes, strict=True)]
            mismatch[concept.slug] = (before, after)
            advance(1)
    return replace(gates, branches=branches, mismatch=mismatch)


def _movable_units(
    gates: Gates, encoder: PromptEncoder, sentences: Mapping[Concept, Pairs], kept: KeptGates
) -> dict[Concept, list[Unit]]:
    """Return, of every concept with tokens that have no gate in some branch, the gates that its
    changes are added to: none of another name, and none of an earlier run."""
    prefixes = {
        concept: name_prefixes(encoder, concept, pairs[0][0])
        for concept, pairs in sentences.items()
    }
    fixed = {unit for known in kept.branches for unit in known}
    there = [set(owners) - fixed for owners in gates.units]
    found = {}
    for concept, own in prefixes.items():
        if all(("", prefix) in owners for owners in gates.units for prefix in own):
            continue
        others = {p for other, each in prefixes.items() if other != concept for p in each}
        last: list[Unit] = [("", own[-1])] if own[-1] not in others else []
        units = [unit for unit in (*last, (concept.slug, AFTER)) if all(unit in o for o in there)]
        if units:
            found[concept] = units
    return found


@dataclass(frozen=True)
class _EditedStates:
    """What the denoiser reads of the sentences with the concept, as a function of changes.

    For every branch: the gated layer's outputs with the gates [n, L, d], how far the gates of the
    units are open [n, L, u], and what the encoder computes after that layer. `wanted` [n, L, D] are
    the states with the anchor.
    """

    outputs: Sequence[Tensor]
    opened: Sequence[Tensor]
    after_layer: Sequence[Callable[[Tensor], Tensor]]
    wanted: Tensor

    @classmethod
    def of(
        cls,
        encoder: PromptEncoder,
        pairs: Pairs,
        branches: Sequence[Neurons],
        places: Sequence[Sequence[int]],
    ) -> _EditedStates:
        """`places` are the first neurons of the units' gates in each branch."""
        recorded = layer_states(encoder, [old for old, _ in pairs])
        outputs, opened = [], []
        for branch, states, neurons, own in zip(
            encoder.branches, recorded, branches, places, strict=True
        ):
            activation = gated_layer(branch)[1].mlp.activation_fn
            hidden = activation(states.inputs @ neurons.read.mT + neurons.bias)
            outputs.append(states.outputs + hidden @ neurons.write.mT)
            sharpness = neurons.bias[own] - neurons.bias[[i + 1 for i in own]]
            opened.append((hidden[..., own] - hidden[..., [i + 1 for i in own]]) / sharpness)
        return cls(
            outputs,
            opened,
            [_after_layer(branch) for branch in encoder.branches],
            encoder.encode([new for _, new in pairs]).float().cpu(),
        )

    def with_changes(self, changes: Sequence[Tensor]) -> Tensor:
        """Return the states [n, L, D] with changes [u, d] of every branch."""
        parts = zip(self.outputs, self.opened, self.after_layer, changes, strict=True)
        return torch.cat([after(out + opened @ each) for out, opened, after, each in parts], dim=-1)


def _after_layer(branch: Branch) -> Callable[[Tensor], Tensor]:
    """Return what a branch computes after its gated layer: the final layer norm, or nothing where
    the pipeline reads the layer's output itself (SDXL)."""
    if branch.layer is not None:
        return lambda outputs: outputs
    norms = [m for n, m in branch.model.named_modules() if n.endswith("final_layer_norm")]
    norm: Any = norms[0]
    weight, bias = (each.detach().float().cpu() for each in (norm.weight, norm.bias))
    return lambda outputs: torch.nn.functional.layer_norm(
        outputs, norm.normalized_shape, weight, bias, norm.eps
    )


def _fit(
    states: _EditedStates, attention: Sequence[AttentionLayer]
) -> tuple[list[Tensor], float, float]:
    """Return the changes [u, d] of every branch, and the mismatch without and with them."""
    device = attention[0].queries.device
    wanted = [layer.outputs(states.wanted.to(device)) for layer in attention]
    variances = [each.var().clamp(min=torch.finfo(torch.float32).tiny) for each in wanted]
    scales = [float(each.std()) for each in states.outputs]
    steps = [
        torch.zeros(opened.shape[-1], outputs.shape[-1], requires_grad=True)
        for outputs, opened in zip(states.outputs, states.opened, strict=True)
    ]

    def mismatch() -> Tensor:
        edited = states.with_changes([s * each for s, each in zip(scales, steps, strict=True)])
        given = [layer.outputs(edited.to(device)) for layer in attention]
        errors = [(a - b).square().mean() for a, b in zip(given, wanted, strict=True)]
        return torch.stack([e / v for e, v in zip(errors, variances, strict=True)]).mean().cpu()

    solver = torch.optim.LBFGS(
        steps, max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = mismatch() + RIDGE * sum(each.square().sum() for each in steps)
        value.backward()
        return value

    with torch.no_grad():
        before = _finite(mismatch())
    with torch.enable_grad():
        solver.step(loss)
    with torch.no_grad():
        after = _finite(mismatch())
    changes = [scale * each.detach() for scale, each in zip(scales, steps, strict=True)]
    return changes, before, after


def _finite(value: Tensor) -> float:
    if not value.isfinite():
        raise ValueError(
            "the outputs of cross-attention are not finite; 0 leaves the compensation out"
        )
    return float(value)


def _moved(neurons: Neurons, places: Sequence[int], changes: Tensor) -> Neurons:
    """Return the neurons with the changes added to the mean changes of the gates at `places`."""
    write = neurons.write.clone()
    for place, change in zip(places, changes, strict=True):
        step = change / (neurons.bias[place] - neurons.bias[place + 1])
        write[:, place] += step
        write[:, place + 1] -= step
    return replace(neurons, write=write)
