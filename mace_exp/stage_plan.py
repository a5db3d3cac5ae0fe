"""The stages of a run in order: what each computes, and how much work that is.

"Work" is counted in units that can be timed, such as sampler steps; see `runs/work.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from mace_exp.evaluation.neighbours import write_neighbours
from mace_exp.models.devices import choose_device, gpu_facts
from mace_exp.recipe import Recipe
from mace_exp.runs.result import all_stored
from mace_exp.runs.status import hardware
from mace_exp.runs.work import Pace, Plan, Work
from mace_exp.stages.attention_maps import draw_attention


def stage_tasks(recipe: Recipe) -> dict[str, Callable[[], object]]:
    """Return a function per stage of a run, in order, that computes its results."""
    tasks: dict[str, Callable[[], object]] = {
        "images": lambda: (recipe.images.value, recipe.prior_images.value),
        "masks": lambda: recipe.masks.value,
        "preservation": lambda: [each.value for each in recipe.preservation.terms.values()],
        **{step: lambda step=step: recipe.step(step).value for step in recipe.method_steps},
        "samples": lambda: _draw_samples(recipe),
        "metrics": lambda: recipe.metrics.value if recipe.suite else {},
        "attacks": lambda: recipe.attacks.value,
    }
    return {stage: tasks[stage] for stage in recipe.config.chosen_stages() if stage in tasks}


def plan_of(recipe: Recipe) -> Plan:
    """Return the work of a run, with the time that it took with this model and machine."""
    context = recipe.context
    device = (str(choose_device(context.device)), gpu_facts().get("gpu", ""))
    facts = (*context.model.computed_by.values(), *hardware().values(), *device)
    machine = (str(each) for each in (*facts, context.ranks.count) if each)
    return Plan(stage_works(recipe), context.cache, Pace(context.cache, *machine))


def stage_works(recipe: Recipe) -> dict[str, Work]:
    """Return the work of each stage of a run, in order; computes nothing."""
    return {stage: _work(recipe, stage) for stage in stage_tasks(recipe)}


def _draw_samples(recipe: Recipe) -> None:
    """Draw the samples, and what is shown beside them: nearest subjects and attention maps."""
    if not recipe.suite:
        return
    recipe.samples.value  # noqa: B018 -- accessing the value computes it
    context, config = recipe.context, recipe.config
    if recipe.bystanders.neighbours:
        write_neighbours(context.folder.neighbours, recipe.bystanders.neighbours)
    evaluation = config.evaluation.active()
    shown = recipe.trained[: evaluation.attention_maps] if evaluation is not None else []
    if shown and "images" in config.method.reads():
        images, edit = recipe.images.value, recipe.edit.value
        draw_attention(context, shown, images, recipe.method, edit, seed=config.seed)


def _work(recipe: Recipe, stage: str) -> Work:
    config, sampler_steps = recipe.config, recipe.config.sampling.steps
    sampled = 2 * len(recipe.suite)
    match stage:
        case "images":
            drawn = config.images.drawn
            stored = all_stored(recipe.images, recipe.prior_images)
            size = _image_count(recipe) * (sampler_steps if drawn else 1)
            return Work(unit="sampling" if drawn else stage, size=size, stored=stored)
        case "masks":
            return Work(unit=stage, size=_image_count(recipe), stored=recipe.masks.stored)
        case "preservation":
            terms = recipe.preservation.terms.values()
            return Work(unit=stage, size=len(terms), stored=all_stored(*terms))
        case "samples":
            stored = recipe.samples.stored if recipe.suite else {}
            together = recipe.samples.together if recipe.suite else ()
            size = sampled * sampler_steps
            return Work(unit="sampling", size=size, stored=stored, together=together)
        case "metrics":
            return Work(unit=f"metrics {config.judge.name}", size=sampled)
        case "attacks":
            unit, stored = f"attack {config.attack.name}", recipe.attacks.stored
            return Work(unit=unit, size=len(recipe.concepts), stored=stored)
    loras = [recipe.settings[each.slug].lora for each in recipe.trained]
    trains = sum(each.steps * each.batch_size for each in loras)
    size = trains if stage == "lora" else len(recipe.concepts)
    return Work(unit=stage, size=size, stored=recipe.step(stage).stored)


def _image_count(recipe: Recipe) -> int:
    return sum(len(each.prompts) for each in recipe.image_sources.values())
