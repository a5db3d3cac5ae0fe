"""ESD-x: train the cross-attention weights of one model on all concepts (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mace_exp.methods.esd.guidance import negatively_guided
from mace_exp.methods.optimization import LossScale, gradient_norm, optimizer_step
from mace_exp.models.attention import quick_self_attention
from mace_exp.models.conditions import Condition, joined
from mace_exp.models.denoiser import predict
from mace_exp.models.latent_sampling import Sampler
from mace_exp.models.projections import ALL_PROJECTIONS, cross_attention_projections
from mace_exp.models.unet import frozen, replaced_modules
from mace_exp.utils.seeding import generator

"""The layers that ESD-x trains: all linear layers of cross-attention, with their biases."""
LEARNING_RATE = "method.learning_rate"


@dataclass(frozen=True, kw_only=True)
class EsdTraining:
    """The training of ESD-x: Adam, constant learning rate, no weight decay, no gradient clipping.

    `eta` is the scale of the negative guidance, `batch_size` counts images per update, `shape` is
    the shape [c, h, w] of their latents.
    """

    steps: int
    learning_rate: float
    eta: float
    batch_size: int
    shape: tuple[int, int, int]
    seed: int


@dataclass(frozen=True)
class EsdConcept:
    """One concept: the conditions on its n texts, and their targets.

    `target` has n rows, too, or one for all texts (the unconditional embedding).
    """

    slug: str
    concept: Condition
    target: Condition


@dataclass(frozen=True)
class EsdRow:
    """The record of one update; `step` counts the updates of all concepts."""

    slug: str
    step: int
    loss: float
    grad_norm: float
    timestep: int


class TrainedLinear(nn.Module):
    """A trainable copy that replaces a linear layer; the layer itself is not changed.

    The copy is in float32 where the layer has half precision, which would round updates to zero.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        kind = torch.promote_types(base.weight.dtype, torch.float32)
        self.weight = nn.Parameter(base.weight.detach().to(kind, copy=True))
        self.bias = (
            None if base.bias is None else nn.Parameter(base.bias.detach().to(kind, copy=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class EsdTrainer:
    """Trains copies of the cross-attention layers of a UNet, which itself is not changed: with the
    copies in place of the layers it is the edited model, without them the original one.

    Random numbers depend only on the seed and the step, so that a training resumed from `state`
    equals an uninterrupted one.
    """

    def __init__(
        self,
        unet: nn.Module,
        concepts: Sequence[EsdConcept],
        sampler: Sampler,
        training: EsdTraining,
    ) -> None:
        self.unet, self.concepts, self.sampler = unet, concepts, sampler
        self.training, self.step = training, 0
        found = cross_attention_projections(unet, ALL_PROJECTIONS)
        self.layers = {path: TrainedLinear(base) for path, base in found.items()}
        self._parameters = dict(self._named())
        values = list(self._parameters.values())
        self._optimizer = torch.optim.Adam(values, lr=training.learning_rate)
        self._scale = LossScale(next(unet.parameters()).dtype, LEARNING_RATE)

    def train(self, until: int, on_step: Callable[[EsdRow], object]) -> None:
        """Train up to `until` updates in total; `on_step` receives a row for each.

        Raises ValueError where no loss scale gives finite gradients.
        """
        with frozen(self.unet), quick_self_attention(self.unet):
            while self.step < min(until, self.training.steps):
                row = self._update(
                    draw_update(self.step, self.concepts, self.sampler, self.training)
                )
                self.step += 1
                on_step(row)

    def weights(self) -> dict[str, Tensor]:
        """Return the trained weights by the names of the UNet's parameters, on the CPU."""
        return {name: value.detach().cpu() for name, value in self._parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the weights and Adam's moments: with `step` all that `load` needs to resume."""
        moments = {
            f"{moment}/{name}": self._optimizer.state[parameter][moment]
            for name, parameter in self._parameters.items()
            for moment in ("exp_avg", "exp_avg_sq", "step")
            if parameter in self._optimizer.state
        }
        return moments | {f"weight/{name}": value for name, value in self.weights().items()}

    def load(self, state: Mapping[str, Tensor], step: int) -> None:
        """Resume from the `state` after `step` updates."""
        self.step = step
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[f"weight/{name}"])
                self._optimizer.state[parameter] = {
                    "step": state[f"step/{name}"],
                    "exp_avg": state[f"exp_avg/{name}"].to(parameter.device),
                    "exp_avg_sq": state[f"exp_avg_sq/{name}"].to(parameter.device),
                }

    def _update(self, draw: Draw) -> EsdRow:
        noised = self._noised(draw)
        wanted = self._wanted(noised, draw)

        def backward(factor: float) -> Tensor:
            with replaced_modules(self.unet, self.layers):
                predicted = predict(self.unet, noised, draw.timestep, *draw.concept.parts())
                loss = F.mse_loss(predicted.to(wanted.dtype), wanted)
                (factor * loss).backward()
            return loss.detach()

        loss, norm = optimizer_step(
            self._optimizer, backward, gradient_norm(self._optimizer), self._scale
        )
        return EsdRow(draw.slug, self.step, float(loss), float(norm), draw.timestep)

    def _noised(self, draw: Draw) -> Tensor:
        """Return x_t [b, c, h, w], partly denoised by the edited model under the concept."""
        with replaced_modules(self.unet, self.layers):
            return self.sampler.partly_denoised(self.unet, draw.noise, draw.concept, draw.done)

    @torch.no_grad()
    def _wanted(self, noised: Tensor, draw: Draw) -> Tensor:
        """Return the original model's prediction with negative guidance, [b, c, h, w]."""
        both = joined([draw.concept, draw.target]).parts()
        predicted = predict(self.unet, torch.cat([noised, noised]), draw.timestep, *both)
        kind = torch.promote_types(predicted.dtype, torch.float32)
        concept, target = predicted.to(kind).chunk(2)
        return negatively_guided(concept, target, self.training.eta)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for path, layer in self.layers.items():
            yield from ((f"{path}.{name}", each) for name, each in layer.named_parameters())


@dataclass(frozen=True)
class Draw:
    """The random draws of one update: a concept, rows of its conditions, the noise, and after how
    many sampling steps x_t is taken."""

    slug: str
    concept: Condition
    target: Condition
    noise: Tensor
    done: int
    timestep: int


def draw_update(
    step: int, concepts: Sequence[EsdConcept], sampler: Sampler, training: EsdTraining
) -> Draw:
    """Draw one update; each pass over the concepts visits every concept once, in a new order."""
    turn, place = divmod(step, len(concepts))
    order = torch.randperm(len(concepts), generator=generator(training.seed, "esd_x round", turn))
    chosen, source = concepts[int(order[place])], generator(training.seed, "esd_x", step)
    count = training.batch_size
    index = torch.randint(len(chosen.concept), (count,), generator=source)
    whole = len(chosen.target) > 1
    done = int(torch.randint(len(sampler.scheduler.timesteps), (), generator=source))
    return Draw(
        slug=chosen.slug,
        concept=chosen.concept.rows(index),
        target=chosen.target.rows(index) if whole else chosen.target.repeated(count),
        noise=torch.randn(count, *training.shape, generator=source),
        done=done,
        timestep=sampler.timestep(done),
    )
