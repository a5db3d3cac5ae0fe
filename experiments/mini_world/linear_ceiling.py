"""The linear ceiling of a text encoder: how well an edit of keys and values can erase and preserve.

Every such edit is linear in the token states. So fit, on some templates, the least-squares
transform of the states that maps the erased names to "a person" and the others to themselves; then,
on other templates, classify the transformed states by name with a linear reader.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from mace_exp.mini import captions

_FIT = (
    "a photo of {}",
    "{} in the park",
    "a drawing of {} at night",
    "a portrait of {} on a red background",
    "{}",
)
_READ = (
    "a picture of {} in the snow",
    "a sketch of {}",
    "{} in the city",
    "an image of {} on a white background",
)
PLACES = ("name", "end", "last")
"""Positions that are read: the last token of the name, end-of-text, and the last padding token."""


def linear_ceilings(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, counts: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Return for each count the rates of the best linear edit that erases so many names, the first
    ones, by place.

    `erased_<place>` is the share of erased names that the reader, fitted by least squares on the
    original states, still recognises; `preserved_<place>` that of the other names, among those
    recognised before the edit.
    """
    names = [name.lower() for name in captions.people()]
    fit, fit_places = _states(encoder, tokenizer, names, _FIT)
    read, places = _states(encoder, tokenizer, names, _READ)
    anchor, anchor_places = _states(encoder, tokenizer, ["a person"], _FIT)
    transforms = {
        count: _best_transform(fit, anchor, (fit_places, anchor_places), count) for count in counts
    }
    values: dict[int, dict[str, float]] = {count: {} for count in counts}
    truth = torch.arange(len(names)).repeat_interleave(len(_READ))
    for place in PLACES:
        before = _states_at(read, places[place])
        taught = _states_at(fit, fit_places[place])
        reader = _reader(taught, torch.arange(len(names)).repeat_interleave(len(_FIT)))
        right_before = reader(before) == truth
        for count, transform in transforms.items():
            right = reader(before @ transform.T) == truth
            erased = truth < count
            values[count][f"erased_{place}"] = float(right[erased].float().mean())
            kept = right[~erased & right_before]
            values[count][f"preserved_{place}"] = float(kept.float().mean())
    return values


def effective_rank(encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """Return the effective rank of the 200 names' centred mean states, by place.

    That is the exponential of the entropy of their normalised squared singular values.
    """
    names = [name.lower() for name in captions.people()]
    states, places = _states(encoder, tokenizer, names, _FIT)
    out = {}
    for place in PLACES:
        at = _states_at(states, places[place])
        means = at.view(len(names), len(_FIT), -1).mean(1)
        share = torch.linalg.svdvals(means - means.mean(0)).square()
        share = share / share.sum()
        out[place] = float((-(share * share.clamp_min(1e-30).log()).sum()).exp())
    return out


def _states(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, names: list[str], templates: tuple[str, ...]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return states [names, templates, L, d] and positions [names, templates] by place."""
    length = encoder.config.max_position_embeddings
    prompts = [template.format(name) for name in names for template in templates]
    ids = torch.tensor(tokenizer(prompts, padding="max_length", max_length=length).input_ids)
    with torch.inference_mode():
        states = torch.cat(
            [encoder(input_ids=part).last_hidden_state for part in ids.split(128)]
        ).double()
    end_id = tokenizer.eos_token_id
    assert isinstance(end_id, int)
    end = (ids == end_id).int().argmax(1)
    after = torch.tensor(
        [len(tokenizer(t.split("{}")[1]).input_ids) - 2 for t in templates]
    ).repeat(len(names))
    places = {"name": end - 1 - after, "end": end, "last": torch.full_like(end, length - 1)}
    shape = (len(names), len(templates))
    return states.view(*shape, length, -1), {
        key: value.view(shape) for key, value in places.items()
    }


def _states_at(states: Tensor, positions: Tensor) -> Tensor:
    """Pick one token state per prompt, [names * templates, d]."""
    rows = zip(states.flatten(0, 1), positions.flatten(), strict=True)
    return torch.stack([row[position] for row, position in rows])


def _best_transform(
    states: Tensor, anchor: Tensor, places: tuple[dict[str, Tensor], dict[str, Tensor]], count: int
) -> Tensor:
    width = states.shape[-1]
    length = states.shape[2]
    sources, targets = [], []
    for i in range(states.shape[0]):
        for j in range(states.shape[1]):
            first = int(places[0]["name"][i, j])
            source = states[i, j, first:]
            if i < count:
                start = int(places[1]["name"][0, j])
                index = torch.arange(start, start + length - first).clamp_max(length - 1)
                targets.append(anchor[0, j, index])
            else:
                targets.append(source)
            sources.append(source)
    x, y = torch.cat(sources), torch.cat(targets)
    erased = sum(len(source) for source in sources[: count * states.shape[1]])
    weight = torch.ones(len(x), 1, dtype=x.dtype)
    # However few names are erased, they weigh as much as all that are preserved.
    weight[:erased] = max(1.0, (len(x) - erased) / erased)
    gram = (weight * x).T @ x
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, (weight * x).T @ y + ridge).T


def _reader(states: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Fit a linear classifier of states [n, d] by ridge regression on one-hot labels [n]."""
    mean = states.mean(0)
    x = torch.cat([states - mean, torch.ones(len(states), 1, dtype=states.dtype)], 1)
    gram = x.T @ x
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(
        gram + ridge, x.T @ torch.nn.functional.one_hot(labels).to(x.dtype)
    )

    def read(states: Tensor) -> Tensor:
        return (
            torch.cat([states - mean, torch.ones(len(states), 1, dtype=states.dtype)], 1)
            .matmul(weights)
            .argmax(-1)
        )

    return read
