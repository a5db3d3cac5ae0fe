"""Stage 2: the text encoder, trained so that its token states describe the picture to draw.

Every edit of keys and values is linear in the token states. So the states must keep 200 names
linearly separable *and* carry the attributes that the denoiser has to draw. Hence 384 dimensions,
two layers, and frozen token embeddings of high variance (a random code per word, which the residual
stream preserves). The training signal comes from linear read-outs at every position from the name
to the last padding token: who is named, and the drawn attributes (hair, hair colour, skin, glasses,
scene). The read-outs are discarded after training.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from experiments.mini_world.caption_sampling import Caption, draw_caption, pick
from experiments.mini_world.linear_ceiling import linear_ceilings
from experiments.mini_world.training import Losses, Schedule, Stage
from mace_exp.mini import captions
from mace_exp.mini.judge import WEIGHTS

WIDTH, CONTEXT, VOCABULARY = 384, 24, 8192
_BATCH = 128
SCHEDULE = Schedule(steps=320, learning_rate=1e-3, steps_between_probes=80, average=0.96)
_EXTRA = ("a person", "a woman", "a man", "art")
ATTRIBUTES = ("hair", "hair_colour", "skin", "glasses")


def tokenizer() -> CLIPTokenizer:
    """Load the tokenizer: the first 8192 entries of CLIP's vocabulary, 24 tokens of context."""
    return CLIPTokenizer.from_pretrained(WEIGHTS.parent / "tokenizer")


def build() -> CLIPTextModel:
    """Build the untrained encoder; its token embeddings are random and frozen."""
    end = VOCABULARY - 1
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=CONTEXT,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = CLIPTextModel(config)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    nn.init.normal_(embedding.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    embedding.weight.requires_grad_(False)
    return model


class Readouts(nn.Module):
    """The encoder with one linear head per fact that its states must encode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build()
        sizes = {
            "subject": len(subjects()),
            "scene": len(captions.SCENES) + 1,
            "squared": len(subjects()),
        }
        sizes |= {name: len(options) + 1 for name, options in attribute_options().items()}
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in sizes.items()})

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids [n, CONTEXT] to states [n, CONTEXT, WIDTH]."""
        return self.encoder(input_ids=ids).last_hidden_state


@cache
def subjects() -> tuple[str, ...]:
    """Return the subjects that a caption can name: the judge's classes and nameless people."""
    return (*captions.subject_classes(), *_EXTRA)


@cache
def attribute_options() -> dict[str, tuple[str, ...]]:
    """Return the values of each drawn attribute; class 0 of a head stands for "not named"."""
    return {
        name: tuple(sorted({str(identity[name]) for identity in captions.identities().values()}))
        for name in ATTRIBUTES
    }


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids [n, CONTEXT] and labels [n] by head.

    `known_from` [n] is the last position of the subject, from which on a causal encoder knows it;
    `end` [n] the position of end-of-text.
    """

    ids: Tensor
    known_from: Tensor
    end: Tensor
    labels: dict[str, Tensor]


def draw_batch(tokenizer: CLIPTokenizer, count: int, seed: int) -> Batch:
    """Draw captions: 70 % name people, 20 % objects, styles or no subject, 10 % nameless people."""
    generator = np.random.default_rng([5, seed])
    drawn = [_draw_any_caption(generator) for _ in range(count)]
    ids = torch.tensor(
        tokenizer([c.text for c in drawn], padding="max_length", max_length=CONTEXT).input_ids
    )
    end = (ids == VOCABULARY - 1).int().argmax(1)
    scene_tokens = [len(tokenizer(c.scene).input_ids) - 2 if c.scene else 0 for c in drawn]
    labels: dict[str, list[int]] = {"subject": [], "scene": [], **{name: [] for name in ATTRIBUTES}}
    for words in drawn:
        labels["subject"].append(subjects().index(words.subject))
        labels["scene"].append(captions.SCENES.index(words.scene) + 1 if words.scene else 0)
        identity = captions.identities().get(words.subject)
        for name, options in attribute_options().items():
            labels[name].append(options.index(str(identity[name])) + 1 if identity else 0)
    known = end - 1 - torch.tensor(scene_tokens)
    return Batch(
        ids=ids, known_from=known, end=end, labels={k: torch.tensor(v) for k, v in labels.items()}
    )


def _draw_any_caption(generator: np.random.Generator) -> Caption:
    scene = pick(captions.SCENES, generator)
    chance = generator.random()
    if chance < 0.7:
        return draw_caption(pick(captions.people(), generator), scene, generator)
    if chance < 0.9:
        others = (*captions.OBJECTS, *captions.STYLES, captions.NOTHING)
        return draw_caption(pick(others, generator), scene, generator)
    noun = pick(_EXTRA, generator)
    return draw_caption(noun, scene, generator, plain_style=noun == "art")


def stage(cache: Path) -> Stage:
    """Return the training stage of the text encoder (`cache` is unused: captions are not kept).

    Its probe measures the accuracy of the read-outs and the linear ceiling.
    """
    model, words = Readouts(), tokenizer()
    return Stage(
        name="language",
        model=model,
        losses=lambda step: _losses(model, draw_batch(words, _BATCH, step)),
        probe=lambda averaged: _probe(averaged, words),
        schedule=SCHEDULE,
    )


def _losses(model: Readouts, batch: Batch) -> Losses:
    states = model(batch.ids)
    places = torch.arange(CONTEXT)
    named = (places >= batch.known_from[:, None]).float()
    ended = (places >= batch.end[:, None]).float()
    losses = {}
    for name, label in batch.labels.items():
        weight = ended if name == "scene" else named
        logits = model.heads[name](states)
        error = F.cross_entropy(
            logits.flatten(0, 1), label[:, None].expand(-1, CONTEXT).flatten(), reduction="none"
        )
        losses[name] = (error.view_as(weight) * weight).sum() / weight.sum()
    target = F.one_hot(batch.labels["subject"], len(subjects())).float()[:, None]
    squared = (model.heads["squared"](states) - target).square().sum(-1)
    losses["squared"] = (squared * named).sum() / named.sum()
    return {
        "loss": sum(losses.values(), torch.zeros(())),
        **{k: v.detach() for k, v in losses.items()},
    }


def _probe(model: nn.Module, words: CLIPTokenizer) -> dict[str, float]:
    assert isinstance(model, Readouts)
    batch = draw_batch(words, 512, 10**9)
    states = model(batch.ids)
    rows = torch.arange(len(batch.end))
    values = {}
    for place, at in {"end": batch.end, "last": torch.full_like(batch.end, CONTEXT - 1)}.items():
        for name in ("subject", "scene", "hair"):
            right = model.heads[name](states[rows, at]).argmax(-1) == batch.labels[name]
            values[f"{name}_{place}"] = float(right.float().mean())
    for count, rates in linear_ceilings(model.encoder, words, (10, 100)).items():
        values |= {f"{key}_{count}": value for key, value in rates.items()}
    return values
