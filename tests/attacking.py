"""Attacks on tiny random models: an aim, and a recipe whose judge answers at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mace_exp.attacks.base import Aim
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.data.training_images import TrainingImages
from mace_exp.evaluation.judges.base import SUBJECT, Judge, JudgeConfig
from mace_exp.models.sampling import SamplingSettings
from mace_exp.recipe import Recipe
from tests.recipes import FEW, recipe_in

SAMPLING = SamplingSettings(
    steps=1, guidance=2.0, scheduler="ddim", batch_size=4, height=32, width=32
)
PERSON = Concept("Amy Adams", Kind.person, "a person")
PEOPLE = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]")
TINY_ATTACK = ("attack.pictures=2", "attack.images=2")


class RandomFaces:
    """Sees one of two people, by the sum of a picture's pixels."""

    classes = {SUBJECT: ("Adam Driver", "Amy Adams", "nobody")}

    def probabilities(self, images: np.ndarray) -> dict[str, np.ndarray]:
        sums = images.reshape(len(images), -1).sum(axis=1)
        drawn = [np.random.default_rng(int(each)).dirichlet([1, 1, 1]) for each in sums]
        return {SUBJECT: np.stack(drawn)}


@dataclass(kw_only=True)
class RandomFacesConfig(JudgeConfig):
    name = "random_faces"
    supports = frozenset({SUBJECT})

    def load(self) -> Judge:
        return RandomFaces()


def pictures(name: str, count: int = 2, seed: int = 0) -> TrainingImages:
    """Random latents for prompts that hold the name."""
    source = torch.Generator().manual_seed(seed)
    return TrainingImages(
        [f"a photo of {name}"] * count,
        list(range(count)),
        np.zeros((count, 32, 32, 3), np.uint8),
        torch.randn(count, 4, 8, 8, generator=source),
    )


def aim(name: str = PERSON.name, *, images: int = 2) -> Aim:
    """An attempt on one person."""
    return Aim(
        concept=PERSON,
        name=name,
        prompts=[f"a portrait of {name}"] * images,
        seeds=list(range(images)),
        sampling=SAMPLING,
        pictures=pictures(name),
        others=pictures("a horse", seed=1),
    )


def attack_recipe(folder: Path, *overrides: str, pipeline: Any, cache: Path) -> Recipe:
    """A recipe of UCE, two people erased from the pipeline, with an attack."""
    given = ("method=uce", "evaluation=none", *PEOPLE, *FEW_OF_UCE, *overrides)
    recipe = recipe_in(folder, *given, pipeline=pipeline, cache=cache)
    recipe.config = replace(recipe.config, judge=RandomFacesConfig())
    return recipe


FEW_OF_UCE = tuple(each for each in FEW if not each.startswith(("images.", "lora.")))
