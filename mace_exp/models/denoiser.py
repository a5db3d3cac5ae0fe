"""A denoiser's call, with what some read beside latents, timestep and token states.

Stable Diffusion 1.x and 2.x read nothing more. SDXL adds to the embedding of the timestep the
pooled embedding of the prompt, by its second text encoder, and the size of the picture. Neither
passes through cross-attention, so no edit of keys and values reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.models.devices import execution_device
from mace_exp.models.text import has_two_encoders, stable_diffusion_encoder


@dataclass(frozen=True)
class AddedConditions:
    """What is added to the timestep's embedding for n images.

    `pooled` [n, d_p] are the pooled embeddings of their prompts. `time_ids` [n, 6], in pixels:
    height and width of the picture, top and left of the crop, height and width asked for.
    """

    pooled: Tensor
    time_ids: Tensor

    def __len__(self) -> int:
        return len(self.pooled)


def added_conditions(
    pipeline: Any, prompts: Sequence[str], latents: Tensor
) -> AddedConditions | None:
    """Return what the pipeline adds when it draws these prompts at the size of `latents`
    [..., h, w]; None where it adds nothing (Stable Diffusion 1.x and 2.x).

    Also for pictures that it did not draw: they are to be like those that it will.
    """
    if not has_two_encoders(pipeline):
        return None
    size = [side * pipeline.vae_scale_factor for side in latents.shape[-2:]]
    time_ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
    pooled = stable_diffusion_encoder(pipeline).pooled(prompts)
    return AddedConditions(pooled, time_ids.repeat(len(prompts), 1))


def select_rows(added: AddedConditions | None, rows: Tensor | slice) -> AddedConditions | None:
    """Return these rows; None of None."""
    return None if added is None else AddedConditions(added.pooled[rows], added.time_ids[rows])


def concatenate(parts: Sequence[AddedConditions | None]) -> AddedConditions | None:
    """Return the rows of all parts in their order; None where no part has any.

    Raises ValueError where one part has rows and another has none.
    """
    some = [part for part in parts if part is not None]
    if len(some) not in (0, len(parts)):
        raise ValueError(f"{len(some)} of {len(parts)} parts of a batch have added conditions")
    if not some:
        return None
    return AddedConditions(
        torch.cat([part.pooled for part in some]), torch.cat([part.time_ids for part in some])
    )


def predict(
    unet: nn.Module,
    noised: Tensor,
    timesteps: Tensor | int,
    states: Tensor,
    added: AddedConditions | None = None,
) -> Tensor:
    """Return what the UNet predicts [n, c, h, w] of noised latents of that shape.

    `states` are [n, L, d]. All is brought to the type and the device of the UNet.
    """
    device, dtype = execution_device(unet), next(unet.parameters()).dtype

    def there(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype)

    conditions = None
    if added is not None:
        conditions = {"text_embeds": there(added.pooled), "time_ids": there(added.time_ids)}
    return unet(there(noised), timesteps, there(states), added_cond_kwargs=conditions).sample
