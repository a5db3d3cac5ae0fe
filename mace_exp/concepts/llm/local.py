"""A language model in a local folder, run by transformers."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding

from mace_exp.concepts.llm.answers import whole_lines
from mace_exp.utils.seeding import derive
from mace_exp.utils.trusted import WEIGHTS, WORDS

log = logging.getLogger(__name__)


class LocalAsk(Protocol):
    """The model: takes an instruction, returns an answer of at most `most_tokens` tokens."""

    def __call__(self, instruction: str, *, most_tokens: int) -> str: ...


def open_local(
    folder: str | Path,
    *,
    device: torch.device,
    seed: int,
    timeout: float,
    temperature: float | None = None,
) -> LocalAsk:
    """Load the model and return a function that asks it; reproducible for a `seed`.

    An answer ends after `most_tokens` tokens or `timeout` seconds; an incomplete last line is
    dropped. Without `temperature` the model's default applies.

    Raises:
        ValueError: the folder has no text-generation model, or (from the function) the instruction
            exceeds the model's context length.
    """
    log.info("loading the language model %s", folder)
    path = Path(folder).expanduser()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True, **WORDS)
        model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, **WEIGHTS)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"prompts.folder = {folder} can't be loaded as a text-generation model: {error}"
        ) from error
    model.eval().requires_grad_(False).to(device)
    options = {"temperature": temperature} if temperature else {}
    asked = Counter[str]()

    def ask(instruction: str, *, most_tokens: int) -> str:
        inputs = _inputs(tokenizer, instruction).to(device)
        room = _room(model, inputs["input_ids"].shape[1], folder)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derive(seed, "prompts", instruction, asked[instruction]))
            written = model.generate(
                **inputs,
                do_sample=temperature != 0,  # 0: greedy decoding
                max_new_tokens=min(most_tokens, room),
                max_time=timeout,
                pad_token_id=tokenizer.eos_token_id,
                **options,
            )[0, inputs["input_ids"].shape[1] :]
        asked[instruction] += 1
        text = tokenizer.decode(written, skip_special_tokens=True)
        return text if _is_complete(model, written) else whole_lines(text)

    return ask


def _inputs(tokenizer: Any, instruction: str) -> BatchEncoding:
    """Return the tokens of an instruction, as a chat if the tokenizer has a chat template."""
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": instruction}]
        return tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    return tokenizer(f"{instruction}\n\n", return_tensors="pt")


def _room(model: Any, used: int, folder: str | Path) -> int:
    """Return how many tokens the model can still generate. Raises ValueError for fewer than 1."""
    limit = getattr(model.config, "max_position_embeddings", None)
    room = 2**31 if limit is None else limit - used
    if room < 1:
        raise ValueError(
            f"prompts.folder = {folder} reads {limit} tokens, the instruction has {used}: use a "
            "model with a longer context"
        )
    return room


def _is_complete(model: Any, written: torch.Tensor) -> bool:
    """Return whether the answer ends with an end-of-sequence token."""
    ends = torch.as_tensor(model.generation_config.eos_token_id or [], device=written.device)
    return bool(len(written) and torch.isin(written[-1], ends))
