"""Call the denoiser, with SDXL's added conditions, on noised latents.

Stable Diffusion 1.x and 2.x have none. SDXL adds to the timestep embedding the pooled prompt
embedding of its second text encoder and the image size. Neither passes through cross-attention, so
edits of keys and values do not affect them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mace_exp.models.devices import execution_device
from mace_exp.models.text import has_two_encoders, stable_diffusion_encoder
from mace_exp.utils.seeding import generator

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


@dataclass(frozen=True)
class AddedConditions:
    """Conditions added to the timestep embedding of n images (diffusers' `added_cond_kwargs`).

    `pooled` [n, d_p] are the pooled embeddings of the prompts. `time_ids` [n, 6], in pixels:
    original height and width, top and left of the crop, target height and width.
    """

    pooled: Tensor
    time_ids: Tensor

    def __len__(self) -> int:
        return len(self.pooled)


def added_conditions(
    pipeline: DiffusionPipeline, prompts: Sequence[str], latents: Tensor
) -> AddedConditions | None:
    """Return the conditions that the pipeline uses to sample these prompts at the size of `latents`
    [..., h, w]; None if it has none (Stable Diffusion 1.x and 2.x).

    Used for user images too, so that training conditions match sampling.
    """
    if not has_two_encoders(pipeline):
        return None
    size = [side * pipeline.vae_scale_factor for side in latents.shape[-2:]]
    time_ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
    pooled = stable_diffusion_encoder(pipeline).pooled(prompts)
    return AddedConditions(pooled, time_ids.repeat(len(prompts), 1))


def select_rows(added: AddedConditions | None, rows: Tensor | slice) -> AddedConditions | None:
    """Return these rows of `added`; None if it is None."""
    return None if added is None else AddedConditions(added.pooled[rows], added.time_ids[rows])


def concatenate(parts: Sequence[AddedConditions | None]) -> AddedConditions | None:
    """Return the rows of all parts in order; None if all parts are None.

    Raises ValueError if only some of the parts are None.
    """
    given = [part for part in parts if part is not None]
    if len(given) not in (0, len(parts)):
        raise ValueError(f"{len(given)} of {len(parts)} parts of a batch have added conditions")
    if not given:
        return None
    return AddedConditions(
        torch.cat([part.pooled for part in given]), torch.cat([part.time_ids for part in given])
    )


def predict(
    unet: nn.Module,
    noised: Tensor,
    timesteps: Tensor | int,
    states: Tensor,
    added: AddedConditions | None = None,
) -> Tensor:
    """Return the UNet's prediction [n, c, h, w] for noised latents of that shape.

    `states` are text states [n, L, d]. Inputs are converted to the UNet's dtype and device.
    """
    device, dtype = execution_device(unet), next(unet.parameters()).dtype

    def to_unet(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype)

    conditions = None
    if added is not None:
        conditions = {"text_embeds": to_unet(added.pooled), "time_ids": to_unet(added.time_ids)}
    return unet(to_unet(noised), timesteps, to_unet(states), added_cond_kwargs=conditions).sample


def timestep_at(pipeline: DiffusionPipeline, thousandths: int) -> int:
    """Return the timestep at a number of thousandths of the model's noise schedule."""
    return thousandths * pipeline.scheduler.config.num_train_timesteps // 1000


def noise_latents(
    pipeline: DiffusionPipeline, latents: Tensor, timestep: int, *, seed: tuple[int, int]
) -> Tensor:
    """Return sqrt(a) latents + sqrt(1 - a) noise, with a = alphas_cumprod at `timestep`.

    The noise is drawn from `seed`, on the CPU. Written out, because `add_noise` of several
    schedulers only knows the timesteps of their inference schedule.
    """
    alpha = pipeline.scheduler.alphas_cumprod[timestep].cpu()
    noise = torch.randn(latents.shape, generator=generator(seed[0], "masks", timestep, seed[1]))
    return alpha.sqrt() * latents.cpu() + (1 - alpha).sqrt() * noise
