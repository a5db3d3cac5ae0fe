"""One optimisation step of stage 2: the loss of a forward pass, its gradient, the update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from mace_exp.methods.mace.attention_loss import AttentionLoss, AttentionTarget
from mace_exp.methods.mace.lora import Lora
from mace_exp.methods.mace.stacked import StackedLora, stacked_loras
from mace_exp.methods.optimization import LossScale, optimizer_step
from mace_exp.models.attention import quick_self_attention, visible_attention
from mace_exp.models.denoiser import AddedConditions, concatenate, predict
from mace_exp.models.devices import execution_device
from mace_exp.models.unet import checkpointing, frozen

LEARNING_RATE = "lora.learning_rate"


@dataclass(frozen=True)
class Batch:
    """The input of one step for one concept.

    `latents` and `noise` [b + p, c, h, w], `timesteps` [b + p], `states` [b + p, L, d] and (SDXL)
    `added` hold b images of the concept, which the attention loss is computed on, then p images for
    prior preservation, which the denoising error is computed on. `target` covers the first b.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    states: Tensor
    target: AttentionTarget
    added: AddedConditions | None = None


@dataclass(frozen=True)
class StepResult:
    """The losses and gradient norms of one step, one number per concept: [C], detached.

    `loss` is the total loss, `layers` the attention loss per layer, `prior` the denoising error on
    images for prior preservation (None without any), `grad_norm` the norm before clipping.
    """

    loss: Tensor
    layers: Mapping[str, Tensor]
    prior: Tensor | None
    grad_norm: Tensor


def noise_scheduler(scheduler: Any) -> Any:
    """Return a scheduler with the noise schedule of `scheduler` that adds noise at any timestep.

    Solvers such as DPM-Solver++ only know the timesteps of their inference schedule, and silently
    use the last of these for any other timestep.
    """
    return DDPMScheduler.from_config(scheduler.config)


@contextmanager
def lora_training(
    unet: nn.Module,
    loras: Sequence[Lora],
    dropout: Sequence[torch.Generator] | None = None,
    *,
    gradient_checkpointing: bool = False,
) -> Iterator[dict[str, StackedLora]]:
    """Attach `loras` to the UNet inside the block; only their factors require gradients there.

    `dropout` holds one generator per LoRA. `gradient_checkpointing` saves memory by running the
    UNet's blocks twice. The UNet is always restored: modules, training modes, gradient flags,
    attention processors.
    """
    with ExitStack() as stack:
        stack.enter_context(frozen(unet))
        stack.enter_context(checkpointing(unet, gradient_checkpointing))
        stack.enter_context(quick_self_attention(unet))
        yield stack.enter_context(stacked_loras(unet, loras, dropout))


def lora_optimizer(
    modules: Mapping[str, StackedLora], learning_rate: float, weight_decay: float = 0.01
) -> torch.optim.AdamW:
    """Return AdamW (0.9, 0.999, eps 1e-8) over the stacked factors."""
    factors = [factor for module in modules.values() for factor in (module.down, module.up)]
    return torch.optim.AdamW(factors, lr=learning_rate, weight_decay=weight_decay)


def lora_step(
    unet: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    noise: Any,
    max_grad_norm: float = 1.0,
    prior_weight: float = 1.0,
    scale: LossScale | None = None,
) -> StepResult:
    """Take one step for all concepts, one batch per concept, inside `lora_training`.

    `noise` is a scheduler with `add_noise`, see `noise_scheduler`. Batches have equal shapes.
    `scale` is the loss scale shared by the steps of a training run; without it a new one is used.

    Raises ValueError where no loss scale gives finite gradients; the factors are unchanged then.
    """
    factors = [factor for group in optimizer.param_groups for factor in group["params"]]
    scale = scale or LossScale(next(unet.parameters()).dtype, LEARNING_RATE)

    def backward(factor: float) -> tuple[AttentionLoss, Tensor | None, Tensor]:
        attention = attention_loss(batches)
        # Also during the backward pass, in which checkpointing runs the blocks again.
        with visible_attention(unet, attention):
            prior = _denoise(unet, batches, noise)
            loss = attention.total() if prior is None else attention.total() + prior_weight * prior
            (factor * loss).sum().backward()
        return attention, prior, loss

    def clip(factor: float) -> Tensor:
        return clip_each(factors, max_grad_norm, scale=factor)

    (attention, prior, loss), grad_norm = optimizer_step(optimizer, backward, clip, scale)
    layers = {name: value.detach() for name, value in attention.per_layer().items()}
    return StepResult(loss.detach(), layers, prior if prior is None else prior.detach(), grad_norm)


def attention_loss(batches: Sequence[Batch]) -> AttentionLoss:
    """Return the loss of these batches, one target per batch, to be filled by a forward pass."""
    height, width = batches[0].latents.shape[-2:]
    return AttentionLoss([batch.target for batch in batches], (height, width))


def _denoise(unet: nn.Module, batches: Sequence[Batch], noise: Any) -> Tensor | None:
    """Run one forward pass; return the denoising error [C] on images for prior preservation, or
    None without any."""
    device = execution_device(unet)
    latents, drawn, timesteps, states = (
        torch.cat([getattr(batch, name) for batch in batches]).to(device)
        for name in ("latents", "noise", "timesteps", "states")
    )
    noisy = noise.add_noise(latents, drawn, timesteps)
    added = concatenate([batch.added for batch in batches])
    predicted = predict(unet, noisy, timesteps, states, added)
    images, rows = len(batches[0].target.positions), len(batches[0].latents)
    if images == rows:
        return None
    expected = prediction_target(noise, latents, drawn, timesteps)
    error = (predicted.float() - expected.float()).square().unflatten(0, (len(batches), rows))
    return error[:, images:].flatten(1).mean(dim=1)


@torch.no_grad()
def clip_each(factors: Sequence[Tensor], max_norm: float, *, scale: float = 1.0) -> Tensor:
    """Clip each concept's gradient to at most `max_norm`; return the norms before clipping, [C].

    Like `clip_grad_norm_`, but per concept; `factors` are stacked, [C, ...]. The gradients are
    those of `scale` times the loss and are divided by `scale` first. A factor on which the loss
    does not depend (values of the last layer) has no gradient and is skipped.
    """
    gradients = [factor.grad for factor in factors if factor.grad is not None]
    if scale != 1:
        for gradient in gradients:
            gradient.div_(scale)
    squares = [gradient.flatten(1).square().sum(dim=1) for gradient in gradients]
    norms = torch.stack(squares).sum(dim=0).sqrt()
    shrink = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shrink[:, None, None])
    return norms


def prediction_target(noise: Any, latents: Tensor, drawn: Tensor, timesteps: Tensor) -> Tensor:
    """Return what the UNet should predict of `latents` noised by `drawn`: noise, or v where the
    scheduler `noise` says so."""
    if noise.config.prediction_type == "v_prediction":
        return noise.get_velocity(latents, drawn, timesteps)
    return drawn
