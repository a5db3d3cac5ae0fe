"""`python -m mace_exp` with a fusion that erases at fewer positions.

    python -m experiments.unlisted_names.positions concepts=celebrity_10 ...

Takes the arguments of `python -m mace_exp`. The fusion's sums hold only the states of a concept's
own tokens, of the end-of-text token and of the padding, so that nothing asks it to act like a LoRA
on other words. Keys of results do not tell this: give a `cache_dir` of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import torch
from torch import Tensor

from mace_exp.__main__ import main
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.stages import fusion
from mace_exp.mini.captions import people
from mace_exp.models.text import PromptEncoder


def own_gram(encoder: PromptEncoder, prompts: Sequence[str]) -> Tensor:
    """Return sum e e^T [d, d], float64, over the tokens of the person whom all prompts name, the
    end-of-text token and the padding."""
    (name,) = [each for each in people() if all(each in prompt for prompt in prompts)]
    states = encoder.encode(prompts)
    places = torch.stack([encoder.positions(each, name, include_end=True) for each in prompts])
    chosen = states[places.to(states.device)].double().cpu()
    return chosen.mT @ chosen


if __name__ == "__main__":
    with (
        patch.object(fusion, "prompt_gram", own_gram),
        patch.object(GramFile, "get", return_value=None),
    ):
        main()
