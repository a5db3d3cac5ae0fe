"""The scores of a run of one picture, as `fake_run.make_run` erases one name."""

from pathlib import Path

import numpy as np

from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.scores import ScoredPictures, Scores


def write_scores(folder: Path) -> None:
    """Write the scores that the metrics of a folder are measured from."""
    prompts = [EvaluationPrompt("erased", "Amy Adams", "a photo of Amy Adams", 0, "Amy Adams")]
    unknown = np.full(1, np.nan)
    scores = Scores(
        subject=["Amy Adams"],
        subject_probability=np.ones(1),
        subject_rank=np.ones(1),
        scene=[""],
        expected_scene=[""],
        scene_probability=unknown,
        scene_rank=unknown,
        person=np.ones(1),
        text_image=unknown,
        pixel_change=np.zeros(1),
        subject_classes=unknown,
        scene_classes=unknown,
        perceptual=unknown,
    )
    ScoredPictures(prompts, scores, scores, "mini").write(folder / "scores.csv")
