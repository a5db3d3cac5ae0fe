"""A few trials of experiments/faults: what is killed, damaged or without room goes on as it was."""

from collections.abc import Iterator

import pytest

from experiments.faults.campaign import DAMAGES, Campaign, tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    pytest.importorskip("resource", reason="processes are forked, which only Unix does")
    root = tmp_path_factory.mktemp("faults")
    yield Campaign(tiny_model(root), root)


@pytest.mark.parametrize("part", ["kills_at_boundaries", "kills", "full_disks", "pairs"])
def test_what_was_ended_goes_on_to_the_same_results(campaign: Campaign, part: str) -> None:
    getattr(campaign, part)(2)
    assert not campaign.failed, campaign.table()
    assert sum(found.total() for found in campaign.outcomes.values()) >= 2


def test_every_damage_changes_a_file() -> None:
    data = bytes(range(100))
    assert len({data, *(damage(data) for damage in DAMAGES.values())}) == 1 + len(DAMAGES)
    assert [damage(b"") for damage in DAMAGES.values()] == [b""] * len(DAMAGES)
