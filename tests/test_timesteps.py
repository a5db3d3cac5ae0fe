"""The density of timesteps."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from mace_exp.config.composing import composed_run
from mace_exp.methods.mace.stages.lora import timestep_density
from mace_exp.methods.mace.timesteps import draw_timesteps, focal_density, uniform_density


def source(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("density", [focal_density(), focal_density(100), uniform_density(50)])
def test_densities_are_densities(density):
    assert density.dtype == torch.float64 and (density >= 0).all()
    assert float(density.sum()) == pytest.approx(1)


def test_the_focus_lies_between_the_two_times():
    density = focal_density(t1=200, t2=400)
    assert int(density.argmax()) == 300
    assert float(density[150:450].sum()) > 0.98
    torch.testing.assert_close(density[:301], density[300:601].flip(0), rtol=1e-6, atol=1e-12)


def test_the_density_scales_with_the_number_of_timesteps():
    torch.testing.assert_close(
        focal_density(100) / 10, focal_density(1000)[::10], rtol=1e-3, atol=1e-9
    )


def test_draws_follow_the_density_and_the_seed():
    density = focal_density()
    drawn = draw_timesteps(density, 20_000, source())
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn, minlength=1000).double() / len(drawn)
    # The largest deviation of 20,000 draws between cumulative curves: 0.0136 at the 0.1 % level.
    assert float((counts.cumsum(0) - density.cumsum(0)).abs().max()) < 0.0136
    assert torch.equal(drawn, draw_timesteps(density, 20_000, source()))


@pytest.mark.parametrize("importance_sampling", [True, False])
def test_a_run_draws_from_the_schedule_of_its_model(importance_sampling):
    """Not from one of 1000 timesteps, whatever the model's; for these the draws stay what they
    were."""

    def density(count):
        lora = composed_run(f"lora.importance_sampling={str(importance_sampling).lower()}").lora
        return timestep_density(lora, DDIMScheduler(num_train_timesteps=count).config)

    assert int(draw_timesteps(density(50), 1000, source()).max()) < 50
    lora = composed_run().lora
    usual = focal_density(k=lora.k, t1=lora.t1, t2=lora.t2)
    assert torch.equal(density(1000), usual if importance_sampling else uniform_density())
