"""A few trials of experiments/faults: what is killed, damaged or without room goes on as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.faults.bench import (
    DAMAGES,
    FAULTS,
    SURVIVED,
    TOGETHER,
    WRONG,
    Bench,
    Tried,
    tiny_model,
)
from experiments.faults.campaign import Campaign


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    pytest.importorskip("resource", reason="processes are forked, which only Unix does")
    root = tmp_path_factory.mktemp("faults")
    yield Bench(tiny_model(root), root, TOGETHER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "numbers"),
    [
        ("SIGKILL at a write boundary", (75, 110)),
        ("SIGKILL at a random time", (1,)),
        ("disk full", (0, 25)),
        ("memory used up", (3,)),
        ("two at once", (0, 1)),
        ("cache entry damaged", (10, 13)),
    ],
)
def test_what_was_ended_goes_on_to_the_same_results(
    bench: Bench, fault: str, numbers: tuple[int, ...]
) -> None:
    for number in numbers:
        tried = FAULTS[fault](bench, number)
        assert tried.outcome == SURVIVED, (tried, (tried.folder / "printed.txt").read_text())


def test_a_campaign_continues_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    place = tmp_path / "place"
    place.mkdir()

    def fault(_: object, number: int) -> Tried:
        tried.append(number)
        return Tried(f"number {number}", WRONG if number == 2 else SURVIVED, place)

    monkeypatch.setitem(FAULTS, "disk full", fault)
    cases = [(TOGETHER, "disk full", number) for number in range(4)]
    benches = {TOGETHER: object()}
    for count in (2, 4):
        campaign = Campaign(tmp_path)
        campaign.run(benches, cases[:count], float("inf"))  # type: ignore[arg-type]
        assert campaign.failed == (count == 4)
    assert tried == [0, 1, 2, 3]
    assert "| disk full | together | 4 | 3 | 0 | 1 | 0 | 0 |" in campaign.table()
    assert (tmp_path / "together-disk_full-2").is_dir()  # the others leave nothing
    assert len([*tmp_path.iterdir()]) == 3
    Campaign(tmp_path).run({}, cases, float("inf"))  # nothing is left to try


@pytest.mark.parametrize("how", DAMAGES)
def test_every_damage_changes_a_file(tmp_path: Path, how: str) -> None:
    file, other = tmp_path / "one.json", tmp_path / "two.json"
    file.write_bytes(bytes(range(100)))
    other.write_bytes(b"{}")
    DAMAGES[how](file)
    assert not file.exists() or file.read_bytes() != bytes(range(100))
    assert other.read_bytes() == b"{}"
    if file.exists() and how != "replaced by another":
        file.write_bytes(b"")
        DAMAGES[how](file)
        assert file.read_bytes() == b"", "an empty file stays one"
