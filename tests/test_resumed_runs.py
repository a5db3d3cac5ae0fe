"""Commands that go on in a run's folder: nothing of an earlier edit is taken for this one's."""

import pytest
import torch
from safetensors.torch import load_file

from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, read_table


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


def test_erased_json_lists_no_file_of_an_earlier_edit(run: Run) -> None:
    """Whatever stages are left out: the refined weights and LoRAs are those that were fused."""
    folder = run("erased", PEOPLE, f"stages={UP_TO_FUSION}")
    assert read(folder / "erased.json")["files"]["pipeline"] == "erased"
    other = ("cfr.closeness=50", "lora.rank=2")
    known = run("known", PEOPLE, *other, "stages=[cfr,lora]")
    run("erased", PEOPLE, *other, "stages=[fusion]", "save=weights")
    files = read(folder / "erased.json")["files"]
    assert files["pipeline"] is None and not (folder / "erased").exists()
    for name in (files["refined"], *files["loras"].values()):
        expected, found = load_file(known / name), load_file(folder / name)
        assert found.keys() == expected.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, expected[key], msg=f"{name}: {key}")
