"""Commands that go on in a run's folder: nothing of an earlier edit is taken for this one's."""

import pytest

from tests.whole_run import PEOPLE, Run, read_table


def test_pictures_of_another_edit_or_of_other_prompts_are_not_measured(run: Run) -> None:
    folder = run("measured", PEOPLE)
    measured = (folder / "metrics.json").read_bytes()
    run("measured", PEOPLE, "stages=[fusion,metrics]")  # the same edit again
    assert (folder / "metrics.json").read_bytes() == measured
    for stages, other in (
        ("[metrics]", "evaluation.parts=[erased]"),
        ("[metrics]", "fusion.closeness=50"),
        ("[fusion,metrics]", "fusion.closeness=50"),
    ):
        with pytest.raises(SystemExit, match="add samples to stages"):
            run("measured", PEOPLE, f"stages={stages}", other)
    assert (folder / "metrics.json").read_bytes() == measured
    assert len(read_table(folder / "samples" / "prompts.csv")) == 10
