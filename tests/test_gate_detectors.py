"""Detectors: where a gate opens, and what may lie in its way."""

import pytest
import torch

from mace_exp.methods.gates.detectors import fit_detectors
from tests.gate_states import clusters


def test_detectors_are_ramps_between_the_two_sides() -> None:
    states, units, preserved = clusters()
    detectors = fit_detectors(states, units, preserved, 3)
    ramps = detectors.ramps(states)
    own = torch.nn.functional.one_hot(units).bool()
    assert bool((ramps[own] >= 1).all()) and bool((ramps[~own] <= 0).all())
    assert bool((detectors.ramps(preserved) <= 0).all()) and bool((detectors.gaps > 0).all())


def test_one_state_on_both_sides_spoils_no_other() -> None:
    states, units, preserved = clusters()
    detectors = fit_detectors(states, units, torch.cat([preserved, states[:1]]), 3)
    ramps = detectors.ramps(states)[:, 0]
    assert float(detectors.gaps[0]) <= 0 < float(detectors.gaps[1:].min())
    assert bool((ramps[1:20] >= 1).all()) and bool((ramps[20:] <= 0).all())
    assert bool((detectors.ramps(preserved)[:, 0] <= 0).all())


def test_few_states_of_many_that_lie_among_others_are_given_up() -> None:
    states, units, preserved = clusters()
    states, units = states.repeat(5, 1), units.repeat(5)
    states += 0.1 * torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    own = (units == 0).nonzero().flatten()
    states[own[:2]] = preserved[:2]
    detectors = fit_detectors(states, units, preserved, 3)
    assert float(detectors.gaps.min()) > 0
    ramps = detectors.ramps(states)[:, 0]
    assert bool((ramps[own[2:]] >= 1).all()) and bool((ramps[own[:2]] <= 0).all())
    assert bool((detectors.ramps(preserved)[:, 0] <= 0).all())
    states[own[2:4]] = preserved[2:4]
    assert float(fit_detectors(states, units, preserved, 3).gaps[0]) <= 0, "four of 100"


@pytest.mark.parametrize("strays", [1, 4])
def test_stray_states_of_made_up_names_take_up_no_gap(strays: int) -> None:
    """One of 20,000 is left out, and the ramp is where it would be without; four are too many."""
    states, units, preserved = clusters()
    made_up = preserved.repeat(20_000 // len(preserved), 1)
    expected = fit_detectors(states, units, preserved, 3, uncertain=made_up)
    made_up[:strays] = states[units == 0].mean(0)
    found = fit_detectors(states, units, preserved, 3, uncertain=made_up)
    share = float(found.gaps[0] / expected.gaps[0])
    assert share > 0.9 if strays == 1 else share < 0.6
    torch.testing.assert_close(found.gaps[1:], expected.gaps[1:], rtol=0.05, atol=0)


def test_states_of_its_own_concept_alone_close_no_gate() -> None:
    """Two tokens of a name with equal states: both gates open for both, and for nobody else."""
    states, units, preserved = clusters()
    states[units == 1] = states[units == 0]
    concepts = torch.where(units == 1, 0, units)
    found = fit_detectors(states, units, preserved, 3, concepts=concepts)
    assert float(found.gaps.min()) > 0
    ramps = found.ramps(states)[:, :2]
    assert bool((ramps[concepts == 0] >= 1).all()) and bool((ramps[concepts == 2] <= 0).all())
    assert bool((found.ramps(preserved) <= 0).all())
    apart = fit_detectors(states, units, preserved, 3)
    assert float(apart.gaps[:2].max()) <= 0, "two people of equal states are kept apart"


def test_no_detector_opens_for_rows_of_no_unit() -> None:
    states, units, preserved = clusters()
    spared = torch.where(units == 2, -1, units)
    detectors = fit_detectors(states, spared, preserved, 2)
    assert bool((detectors.ramps(states[units == 2]) <= 0).all())
