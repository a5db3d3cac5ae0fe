"""Keys of the published implementation's configurations, and what receives them here."""

RENAMED: dict[str, tuple[type, *tuple[str, ...]]] = {
    "variant": (str, "model.variant"),
    "rank": (int, "lora.rank"),
    "learning_rate": (float, "lora.learning_rate"),
    "max_train_steps": (int, "lora.steps"),
    "train_batch_size": (int, "lora.batch_size"),
    "adam_weight_decay": (float, "lora.weight_decay"),
    "max_grad_norm": (float, "lora.max_grad_norm"),
    "use_pooler": (bool, "lora.end_of_text"),
    "importance_sampling": (bool, "lora.importance_sampling"),
    "train_seperate": (bool, "lora.per_concept"),
    "gradient_checkpointing": (bool, "lora.gradient_checkpointing"),
    "lamb": (float, "cfr.closeness", "fusion.closeness"),
    "all_words": (bool, "cfr.all_words"),
    "aug_length": (int, "prompts.count"),
    "prompt_len": (int, "prompts.count"),
    "resolution": (int, "sampling.height", "sampling.width"),
    "seed": (int, "seed"),
}
"""The type of a published key's value, and the keys that receive it here; later entries win."""
ALIASES = {"class_prompt": "preserve_prompt", "preserve_data_dir": "class_data_dir"}
"""Keys that are read if the other one is missing."""
_CACHE = (False, "captions of this project replace it; preservation=cached uses an imported cache")
_CROP = (False, "generated images are not cropped; images=folder crops and flips images and masks")
_FOLDERS = "all concepts share one folder of class images, with one prompt: prior_images=folder"
UNCONVERTED: dict[str, tuple[object, str]] = {
    "adam_beta1": (0.9, "always 0.9"),
    "adam_beta2": (0.999, "always 0.999"),
    "adam_epsilon": (1e-8, "always 1e-8"),
    "lr_scheduler": ("constant", "always constant"),
    "lr_warmup_steps": (0, "always 0"),
    "gradient_accumulation_steps": (1, "always 1"),
    "max_memory": (None, "memory does not grow with the number of concepts"),
    "use_gpt": (False, "prompts come from templates; prompts=llm uses a language model"),
    "generate_data": (True, "a run generates its images; images=folder reads your images"),
    **dict.fromkeys(("augment", "center_crop", "random_flip"), _CROP),
    **dict.fromkeys(("exp_name", "output_dir"), (None, "hydra.run.dir=... sets the run folder")),
    # Not converted if their value, or another key, forbids it:
    "prior_preservation_cache_path": _CACHE,
    "domain_preservation_cache_path": _CACHE,
    "use_gsam_mask": (False, "styles and explicit words are trained on whole images"),
    "class_data_dir": (None, _FOLDERS),
    "preserve_prompt": (None, _FOLDERS),
    "with_prior_preservation": (False, "needs one folder, one prompt, and a weight above 0"),
    "mixed_precision": (None, "model.dtype accepts float32, float16 and bfloat16"),
    "report_to": ("none", "the run folder has all rows; tracking=wandb sends them, too"),
}
"""Keys without a counterpart: the value that changes nothing, the remark for other values."""
DTYPES = {"no": "float32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
ANCHOR_KINDS = {"person": "person", "man": "person", "woman": "person", "clothes": "explicit"}
"""Kind of a concept that is not in conf/concepts, by the last word of its anchor."""
