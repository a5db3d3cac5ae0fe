"""The distribution of the training timesteps."""

import torch
from torch import Tensor


def focal_density(
    train_timesteps: int = 1000, *, k: float = 0.05, t1: float = 200, t2: float = 400
) -> Tensor:
    """Return the concept-focal density [train_timesteps], float64 (paper, section 4.2).

        p(t) = sigmoid(k (t - t1)) - sigmoid(k (t - t2)), normalised

    The content of an image is decided between t1 and t2, so that is where the attention to the
    concept is trained most. k (1 / timestep), t1 and t2 refer to a noise schedule of 1000 timesteps
    and are rescaled to `train_timesteps`.
    """
    t = torch.arange(train_timesteps, dtype=torch.float64) * (1000 / train_timesteps)
    density = torch.sigmoid(k * (t - t1)) - torch.sigmoid(k * (t - t2))
    return density / density.sum()


def uniform_density(train_timesteps: int = 1000) -> Tensor:
    """Return equal probabilities [train_timesteps], float64."""
    return torch.full((train_timesteps,), 1 / train_timesteps, dtype=torch.float64)


def draw_timesteps(density: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` timesteps [count], int64, drawn with replacement."""
    return torch.multinomial(density, count, replacement=True, generator=generator)
