"""States in the gated layer of a text encoder, and their changes from a concept to its anchor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.concepts.concept import Concept
from mace_exp.methods.token_pairs import Tokens, paired_tokens
from mace_exp.models.text import Branch, PromptEncoder

Prefix = tuple[int, ...]
AFTER: Prefix = ()
"""The positions after a name. A position within a name is identified by the tokens up to it."""
MAX_AFTER = 32
"""Most positions after the name that are sampled per sentence: neighbouring states are similar."""
MAX_PADDING = 4
"""Padding positions, approximately, that are sampled per retained sentence."""


@dataclass(frozen=True)
class LayerStates:
    """Inputs of one layer's MLP, and outputs of the layer, for n sentences; each [n, L, d]."""

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Rows:
    """Sampled positions of a concept's sentences: inputs of the MLP [r, d], changes of the layer's
    output to the anchor's [r, d], and the tokens of the name up to each position."""

    inputs: Tensor
    changes: Tensor
    prefixes: list[Prefix]


def gated_layer(branch: Branch) -> tuple[str, Any]:
    """Return the name and the module of the layer whose output the pipeline reads.

    That is the last layer, or the penultimate one where the pipeline reads its states (SDXL).

    Raises:
        ValueError: the text encoder has no layers as CLIP has them.
    """
    layers = [
        (name, module)
        for name, module in branch.model.named_modules()
        if all(hasattr(module, part) for part in ("layer_norm2", "mlp"))
        and all(isinstance(getattr(module.mlp, part, None), nn.Linear) for part in ("fc1", "fc2"))
    ]
    from_end = -1 if branch.layer is None else branch.layer
    if len(layers) < -from_end:
        raise ValueError(
            f"method=gates adds neurons to the MLPs of a CLIP text encoder, and "
            f"{type(branch.model).__name__} has none: choose another method"
        )
    return layers[from_end]


def branch_width(branch: Branch) -> int:
    """Return the width d of a branch's states."""
    return gated_layer(branch)[1].mlp.fc2.out_features


def layer_states(encoder: PromptEncoder, sentences: Sequence[str]) -> list[LayerStates]:
    """Return the states of sentences in the gated layer of every branch, float32, on the CPU."""
    layers = [gated_layer(branch)[1] for branch in encoder.branches]
    with _recorded(layers) as records:
        for _ in encoder.stream(sentences):
            pass
    return [LayerStates(*map(torch.cat, zip(*record, strict=True))) for record in records]


@contextmanager
def _recorded(layers: Sequence[Any]) -> Iterator[list[list[tuple[Tensor, Tensor]]]]:
    """Yield a list per layer that fills with (MLP input, layer output) of every batch."""
    records: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
    hooks = [_watch(layer, record) for layer, record in zip(layers, records, strict=True)]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


def _watch(layer: Any, record: list[tuple[Tensor, Tensor]]) -> Any:
    def keep(module: nn.Module, given: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        read = layer.layer_norm2(states_before[0])
        record.append((read.detach().float().cpu(), states.detach().float().cpu()))

    def before(module: nn.Module, given: Any) -> None:
        states_before[:] = [given[0]]

    states_before: list[Tensor] = []
    hooks = (layer.layer_norm2.register_forward_pre_hook(before), layer.register_forward_hook(keep))
    return _Hooks(hooks)


@dataclass(frozen=True)
class _Hooks:
    handles: Sequence[Any]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def concept_rows(
    encoder: PromptEncoder, concept: Concept, sentences: Sequence[tuple[str, str]]
) -> list[Rows]:
    """Return the rows of a concept for every branch; `sentences` are pairs, with the concept and
    with its anchor."""
    states = layer_states(encoder, [old for old, _ in sentences])
    wanted = layer_states(encoder, [new for _, new in sentences])
    places = [_places(encoder, concept, old, new) for old, new in sentences]
    return [_rows(old, new, places) for old, new in zip(states, wanted, strict=True)]


def _rows(
    old: LayerStates, new: LayerStates, places: Sequence[tuple[list[int], list[int], list[Prefix]]]
) -> Rows:
    inputs, changes = [], []
    for i, (at, to, _) in enumerate(places):
        inputs.append(old.inputs[i, at])
        changes.append(new.outputs[i, to] - old.outputs[i, at])
    prefixes = [prefix for _, _, each in places for prefix in each]
    return Rows(torch.cat(inputs), torch.cat(changes), prefixes)


def _places(
    encoder: PromptEncoder, concept: Concept, old: str, new: str
) -> tuple[list[int], list[int], list[Prefix]]:
    """Return the positions in `old` that change, the positions in `new` that they are mapped to,
    and the tokens of the name up to each."""
    at, to = paired_tokens(encoder, concept, old, new, Tokens.all)
    last = encoder.context_length - 1
    at, to = [*at, *range(at[-1] + 1, last + 1)], [*to, *[last] * (last - at[-1])]
    tokens = name_prefixes(encoder, concept, old)
    after = _spread(range(len(tokens), len(at)), MAX_AFTER)
    chosen = [*range(len(tokens)), *after]
    return [at[i] for i in chosen], [to[i] for i in chosen], [*tokens, *[AFTER] * len(after)]


def name_prefixes(encoder: PromptEncoder, concept: Concept, sentence: str) -> list[Prefix]:
    """Return the tokens of the name up to each of them, as in the sentence."""
    name = encoder.positions(sentence, concept.name).nonzero().flatten().tolist()
    ids = encoder.token_ids([sentence])[0].tolist()
    return [tuple(ids[name[0] : position + 1]) for position in name]


def retained_rows(
    encoder: PromptEncoder, sentences: Sequence[str], avoid: set[Prefix] | None = None
) -> list[Tensor]:
    """Return the inputs of the MLP [r, d] at sampled positions of retained sentences, for every
    branch. Positions at which one of the prefixes in `avoid` ends are left out."""
    parts = [[torch.zeros(0, branch_width(branch))] for branch in encoder.branches]
    for start in range(0, len(sentences), 64):
        batch = sentences[start : start + 64]
        ids = encoder.token_ids(batch).tolist()
        chosen = _chosen(ids, start, encoder.tokenizer.eos_token_id, avoid or set())
        for part, states in zip(parts, layer_states(encoder, batch), strict=True):
            part += [rows[chosen[i]] for i, rows in enumerate(states.inputs)]
    return [torch.cat(part) for part in parts]


def _chosen(ids: list[list[int]], start: int, end: int, avoid: set[Prefix]) -> list[list[int]]:
    """Return the sampled positions of each row of ids: words, the end-of-text token, and some
    padding positions, shifted from row to row. `start` is the index of the first row."""
    lengths = {len(prefix) for prefix in avoid}
    chosen = []
    for number, row in enumerate(ids, start):
        words = row.index(end) + 1
        step = max(1, (len(row) - words) // MAX_PADDING)
        places = [*range(words), *range(words + number % step, len(row), step)]
        chosen.append(
            [q for q in places if not any(tuple(row[q + 1 - n : q + 1]) in avoid for n in lengths)]
        )
    return chosen


def _spread(places: range, most: int) -> list[int]:
    """Return about `most` of the places, evenly spaced, and the first two."""
    if len(places) <= most:
        return list(places)
    return sorted({*places[:2], *(places[i * len(places) // most] for i in range(most))})
