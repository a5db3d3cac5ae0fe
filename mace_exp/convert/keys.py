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
    "gradient_accumulation_steps": 1,
}
"""What is not a key here: left out silently where it has the value that training has."""
_OWN_FOLDER = "a run makes its own folder; another by hydra.run.dir=..."
_CROPS = "drawn images are taken whole; images=folder crops and flips with its masks"
_RESUMING = "stages are kept as they are done; resume=<run folder> goes on"
WITHOUT_COUNTERPART = {
    "use_gpt": "prompts come out of the project's own templates; prompts=llm asks a language model",
    "augment": _CROPS,
    "center_crop": _CROPS,
    "random_flip": _CROPS,
    "max_memory": "not needed: memory does not grow with the number of concepts",
    "output_dir": _OWN_FOLDER,
    "logging_dir": _OWN_FOLDER,
    "allow_tf32": "products are computed as PyTorch is set to; less precise ones by model.dtype",
    "use_8bit_adam": "AdamW in float32: the state of a LoRA is small",
    "scale_lr": "lora.learning_rate is taken as it is, whatever the batch",
    "dataloader_num_workers": "not needed: images are encoded once, before training",
    "enable_xformers_memory_efficient_attention": "not needed: attention is computed by PyTorch",
    "set_grads_to_none": "always done",
    "revision": "the hub's current one is taken; another out of a folder, by model.source",
    "tokenizer_name": "the model's own is taken",
    "train_text_encoder": "keys and values of cross-attention are edited, nothing else",
    "num_train_epochs": "lora.steps counts steps",
    "lr_num_cycles": "the learning rate is constant",
    "lr_power": "the learning rate is constant",
    "checkpointing_steps": _RESUMING,
    "checkpoints_total_limit": _RESUMING,
    "resume_from_checkpoint": _RESUMING,
    "instance_data_dir": "images of your own by images=folder images.path=...",
    "instance_prompt": "prompts come out of templates; images of your own may bring a prompts.csv",
    "num_class_images": "all images of a folder are used; none are drawn",
    "sample_batch_size": "sampling.batch_size",
    "validation_prompt": "prompts to measure with come out of templates, see evaluation",
    "local_rank": "torchrun says it",
    "push_to_hub": "nothing is sent to a hub",
    "hub_model_id": "nothing is sent to a hub",
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
        if key in FIXED and value is not None and not same(value, FIXED[key]):
            made.remarks.append(f"{key} = {value}: always {FIXED[key]} here")
        elif value is None or value is False or value in ("", [], {}):
            continue  # asks for nothing
        elif key in WITHOUT_COUNTERPART and value != 0:
            made.remarks.append(f"{key} = {value}: {WITHOUT_COUNTERPART[key]}")
        elif key not in known:
            made.remarks.append(f"{_shown(key, value)}: unknown")
    return made


def _shown(key: str, value: Any) -> str:
    """Return a key with its value, or alone where the file would spread what is secret."""
    secret = any(part in str(key).lower() for part in ("token", "secret", "password", "api_key"))
    return str(key) if secret else f"{key} = {value}"
