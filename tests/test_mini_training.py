"""The recipe's loop: what it resumes, how its rate runs, and its optimiser."""

from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.mini_world.muon import Muon, orthogonalise
from experiments.mini_world.training import (
    Schedule,
    Stage,
    averaged_model,
    digest_of,
    progress_of,
    train,
    write_checkpoint,
)


def stage() -> Stage:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def losses(step: int) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    schedule = Schedule(steps=40, learning_rate=1e-2, warmup=5, steps_between_probes=40)
    return Stage(
        name="small", model=model, losses=losses, probe=lambda _: {"x": 1.0}, schedule=schedule
    )


def test_an_interrupted_training_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    whole = train(stage(), tmp_path / "whole")
    train(stage(), tmp_path / "parts", until_step=17)
    parts = train(stage(), tmp_path / "parts")
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_the_averaged_model_is_read_back(tmp_path: Path) -> None:
    trained = train(stage(), tmp_path)
    read = averaged_model(stage(), tmp_path)
    for one, two in zip(trained.parameters(), read.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_training_goes_on_from_weights_alone(tmp_path: Path) -> None:
    trained = stage().model
    write_checkpoint(tmp_path, "small", trained, step=39, seconds=7.0)
    assert progress_of(tmp_path, "small") == {"step": 39, "seconds": 7.0}
    gone_on = train(stage(), tmp_path)
    assert progress_of(tmp_path, "small")["step"] == 40
    for one, two in zip(trained.parameters(), gone_on.parameters(), strict=True):
        assert (one - two).abs().max() < 0.05


def test_the_digest_of_stages_tells_their_weights_apart(tmp_path: Path) -> None:
    model = stage().model
    write_checkpoint(tmp_path, "small", model, step=1, seconds=1.0)
    first = digest_of(tmp_path, ["small"])
    write_checkpoint(tmp_path, "small", model, step=2, seconds=9.0)
    assert digest_of(tmp_path, ["small"]) == first
    next(model.parameters()).data[0, 0] += 1e-3
    write_checkpoint(tmp_path, "small", model, step=2, seconds=9.0)
    assert digest_of(tmp_path, ["small"]) != first


def test_a_stage_that_was_not_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train the stage 'small' first"):
        averaged_model(stage(), tmp_path)


def test_the_rate_warms_up_stays_and_falls() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=10, fall=0.4)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[0] == 0.1 and factors[50] == 1.0 and factors[100] == 0.0
    assert factors[80] == pytest.approx(0.5)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(0))
    for each in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalise(each))
        assert values.min() > 0.6 and values.max() < 1.3


def test_muon_steps_by_its_rate_whatever_the_gradient() -> None:
    for scale in (1e-3, 1e3):
        kernel = nn.Parameter(torch.zeros(6, 5, 3, 3))
        kernel.grad = scale * torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
        Muon([kernel], lr=0.02).step()
        norm = torch.linalg.matrix_norm(kernel.detach().flatten(1), ord=2)
        assert 0.02 * 0.6 < norm < 0.02 * 1.3
