"""A recipe on a model in memory: single stages with explicit settings, without a command line."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from mace_exp.models.loading import load_model
from mace_exp.models.model import Model
from mace_exp.recipe import Recipe
from mace_exp.runs.cache import Cache
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.record import Tracker
from tests.composing import composed

FEW = (
    *("prompts.count=3", "preservation.prior.count=8", "preservation.domain.count=8"),
    *("images.per_concept=2", "lora.steps=2", "sampling.steps=2", "tracking=none"),
)


def recipe_in(
    folder: Path, *overrides: str, pipeline: Any = None, cache: Path | None = None
) -> Recipe:
    """Return the recipe of these settings in a folder; `pipeline` is the model, in memory.

    Its context may make the results of every stage that the settings ask for.
    """
    config = replace(deepcopy(composed(*overrides)), cache_dir=str(cache or folder / "cache"))
    folder.mkdir(exist_ok=True)

    def load() -> Model:
        if pipeline is None:
            return load_model(config.model, "cpu")
        return Model(pipeline, config.model.dtype.name)

    context = Context(
        load=load,
        cache=Cache(Path(config.cache_dir)),
        folder=RunFolder(folder),
        tracker=Tracker(None),
        device="cpu",
        makes=frozenset(config.chosen_stages()),
    )
    return Recipe(context, config)
