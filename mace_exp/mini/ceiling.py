"""The linear ceiling of a text encoder: how well any edit of keys and values could erase and
preserve at once.

Every such edit is linear in the token states. So: fit the best linear transform of the states that
sends some names to "a person" and keeps the others, on some templates; on other templates, read
from the transformed states who is named.
"""

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
_PLACES = ("name", "end", "last")


def linear_ceiling(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, count: int
) -> dict[str, float]:
    """Best rates, at the name's last token, at end-of-text and at the last padding, for the first
    `count` names.

    Returns `erased_<place>`, the share of erased names that still read as themselves, and
    `preserved_<place>`, that of the others that read right among those that did before; from a
    least-squares reader of the original states.
    """
    names = [name.lower() for name in captions.people()]
    fit, _ = _states(encoder, tokenizer, names, _FIT)
    read, places = _states(encoder, tokenizer, names, _READ)
    anchor, _ = _states(encoder, tokenizer, ["a person"], _FIT)
    _, fit_places = _states(encoder, tokenizer, names, _FIT)
    _, anchor_places = _states(encoder, tokenizer, ["a person"], _FIT)
    transform = _best_transform(fit, anchor, (fit_places, anchor_places), count)
    values = {}
    for place in _PLACES:
        before = torch.stack(
            [row[p] for row, p in zip(read.flatten(0, 1), places[place].flatten(), strict=True)]
        )
        taught = torch.stack(
            [row[p] for row, p in zip(fit.flatten(0, 1), fit_places[place].flatten(), strict=True)]
        )
        reader = _reader(taught, torch.arange(len(names)).repeat_interleave(len(_FIT)))
        truth = torch.arange(len(names)).repeat_interleave(len(_READ))
        right_before = reader(before) == truth
        right = reader(before @ transform.T) == truth
        erased = truth < count
        values[f"erased_{place}"] = float(right[erased].float().mean())
        values[f"preserved_{place}"] = float(right[~erased & right_before].float().mean())
    return values


def effective_rank(encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """Exponential of the entropy of the spectrum of the 200 names' centred mean states, at each
    place."""
    names = [name.lower() for name in captions.people()]
    states, places = _states(encoder, tokenizer, names, _FIT)
    out = {}
    for place in _PLACES:
        at = torch.stack(
            [row[p] for row, p in zip(states.flatten(0, 1), places[place].flatten(), strict=True)]
        )
        means = at.view(len(names), len(_FIT), -1).mean(1)
        share = torch.linalg.svdvals(means - means.mean(0)).square()
        share = share / share.sum()
        out[place] = float((-(share * share.clamp_min(1e-30).log()).sum()).exp())
    return out


def _states(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, names: list[str], templates: tuple[str, ...]
) -> tuple[Tensor, dict[str, Tensor]]:
    """States [names, templates, L, d] and positions [names, templates] of each place."""
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
    weight[:erased] = max(
        1.0, (len(x) - erased) / erased
    )  # few names weigh as much as all that stay
    gram = (weight * x).T @ x
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, (weight * x).T @ y + ridge).T


def _reader(states: Tensor, labels: Tensor):
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
