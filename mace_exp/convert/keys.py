"""A published configuration, key by key: renamed, fixed here, left out, or more than a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mace_exp.convert.experiment import Experiment
from mace_exp.convert.parts import PARTS
from mace_exp.convert.values import number, same, switch

NUMBERS = {
    "rank": ("lora.rank", int),
    "learning_rate": ("lora.learning_rate", float),
    "max_train_steps": ("lora.steps", int),
    "train_batch_size": ("lora.batch_size", int),
    "adam_weight_decay": ("lora.weight_decay", float),
    "max_grad_norm": ("lora.max_grad_norm", float),
    "seed": ("seed", int),
}
SWITCHES = {
    "use_pooler": "lora.end_of_text",
    "importance_sampling": "lora.importance_sampling",
    "train_seperate": "lora.per_concept",
    "gradient_checkpointing": "lora.gradient_checkpointing",
    "all_words": "cfr.all_words",
}
"""Keys that mean the same here under another name."""
FIXED = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
}
"""What is not a key here: left out silently where it has the value that training has."""
WITHOUT_COUNTERPART = {
    "use_gpt": "prompts come out of the project's own templates; prompts=llm asks a language model",
    "augment": "drawn images are taken whole; images=folder crops and flips with its masks",
    "with_prior_preservation": "prior_images=folder takes class images",
    "prior_loss_weight": "prior_images.weight, where prior_images=folder takes class images",
    "preserve_prompt": "prior_images.prompt, where prior_images=folder takes class images",
    "max_memory": "not needed: memory does not grow with the number of concepts",
    "output_dir": "a run makes its own folder; another by hydra.run.dir=...",
}


def convert(theirs: Mapping[str, Any]) -> Experiment:
    """Return the experiment that does here what a published configuration does there.

    Raises:
        ValueError: no concepts, another number of anchors, or a value of a wrong type.
    """
    made, known = Experiment(), set(NUMBERS) | set(SWITCHES) | set(FIXED) | set(WITHOUT_COUNTERPART)
    for convert_part, keys in PARTS:
        convert_part(made, theirs)
        known |= set(keys)
    for key, (ours, kind) in NUMBERS.items():
        if theirs.get(key) is not None:
            made.values[ours] = number(theirs, key, kind)
    for key, ours in SWITCHES.items():
        if theirs.get(key) is not None:
            made.values[ours] = switch(theirs, key)
    for key, value in theirs.items():
        if key in WITHOUT_COUNTERPART and value not in (None, False):
            made.remarks.append(f"{key} = {value}: {WITHOUT_COUNTERPART[key]}")
        elif key in FIXED and value is not None and not same(value, FIXED[key]):
            made.remarks.append(f"{key} = {value}: always {FIXED[key]} here")
        elif key not in known:
            made.remarks.append(f"{key} = {value}: unknown")
    return made
