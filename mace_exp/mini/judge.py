"""The judge: a classifier of the embedded model's pictures, trained on renders only.

It shares nothing with the text encoder's training, so that its predictions for generated
pictures are evidence.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mace_exp.mini import captions
from mace_exp.models.latents import signed
from mace_exp.utils.picture_cache import PictureCache
from mace_exp.utils.tensors import save_tensors

WEIGHTS = Path(__file__).parent / "weights" / "judge"
_FILE = "model.safetensors"
_WIDTHS = (32, 64, 128, 192)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)
        )
        self.first_norm, self.second_norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        nn.init.zeros_(self.second_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(x + inner)


class Recogniser(nn.Module):
    """Residual network with a subject and a scene head; images [n, 3, 96, 96] are in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, _WIDTHS[0], 5, stride=2, padding=2, bias=False)]
        layers += [nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU(), _Residual(_WIDTHS[0])]
        for narrow, wide in zip(_WIDTHS, _WIDTHS[1:], strict=False):
            layers += [
                nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
            layers += [_Residual(wide)]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {
                "subject": nn.Linear(_WIDTHS[-1], len(captions.subject_classes())),
                "scene": nn.Linear(_WIDTHS[-1], len(captions.SCENES)),
            }
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features, [n, 192]."""
        return self.body(images).mean((2, 3))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head, [n, classes]."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}


def load_recogniser(folder: Path) -> Recogniser:
    """Load the network that `MiniJudge.save` wrote, in float32.

    Raises:
        ValueError: the file lacks weights of this network, or holds others.
    """
    network = Recogniser()
    state = {key: value.float() for key, value in load_file(folder / _FILE).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    strange = [key for key in missing if not key.endswith("num_batches_tracked")] + unexpected
    if strange:
        raise ValueError(
            f"{folder / _FILE} is not a judge of this version: it differs in {strange}"
        )
    return network


class MiniJudge:
    """Classifies subject and scene of a picture. Gives all `ANSWERS` of
    `evaluation.judges.base`."""

    def __init__(self, network: Recogniser) -> None:
        self._network = network.eval()
        self._pooled = PictureCache(self._pool)
        self.classes: Mapping[str, tuple[str, ...]] = {
            "subject": captions.subject_classes(),
            "scene": captions.SCENES,
        }

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> "MiniJudge":
        """Load a judge, by default the shipped one.

        Raises:
            ValueError: the folder holds no judge, or one with other classes.
        """
        if not (folder / _FILE).exists():
            raise ValueError(
                f"no judge in {folder}: give a folder that MiniJudge.save wrote (it has {_FILE})"
            )
        classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        if classes != {"subject": list(captions.subject_classes()), "scene": list(captions.SCENES)}:
            raise ValueError(
                f"the judge in {folder} was trained on other classes than mini/captions.py has"
            )
        return cls(load_recogniser(folder))

    def save(self, folder: Path) -> None:
        """Save the weights in float16 and the classes."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self._network.state_dict()
        stored = {name: each.half() for name, each in state.items() if each.is_floating_point()}
        save_tensors(folder / _FILE, stored)
        classes = {name: list(options) for name, options in self.classes.items()}
        (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")

    def probabilities(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the class probabilities of each head, uint8 [n, 96, 96, 3] to [n, classes]."""
        features = torch.from_numpy(self.features(images))
        with torch.inference_mode():
            logits = {name: head(features) for name, head in self._network.heads.items()}
        return {name: logits[name].softmax(-1).numpy() for name in self.classes}

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the pooled features, [n, 192], for distances between sets of pictures."""
        return np.stack(self._pooled.of(images))

    def _pool(self, images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            parts = [self._network.features(batch) for batch in self._tensor(images).split(64)]
        return list(torch.cat(parts).numpy())

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return the mean probability of the subject and the scene that each prompt names, [n].

        NaN for a prompt that names neither.
        """
        probabilities = self.probabilities(images)
        scores = []
        for i, prompt in enumerate(prompts):
            named = self._named(prompt)
            scores.append(
                np.mean([probabilities[head][i, index] for head, index in named])
                if named
                else np.nan
            )
        return np.array(scores, np.float32)

    def persons(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of all people together, nameless ones included, [n]."""
        names = captions.subject_classes()
        people = [names.index(name) for name in (*captions.people(), captions.NOBODY)]
        return self.probabilities(images)["subject"][:, people].sum(axis=1)

    def _named(self, prompt: str) -> list[tuple[str, int]]:
        text = f" {prompt.lower()} "
        found = []
        for head, phrases in self._phrases.items():
            hits = [(len(phrase), index) for phrase, index in phrases if f" {phrase} " in text]
            if hits:
                found.append((head, max(hits)[1]))
        return found

    @cached_property
    def _phrases(self) -> dict[str, list[tuple[str, int]]]:
        subject = captions.subject_classes()
        nobody, nothing = subject.index(captions.NOBODY), subject.index(captions.NOTHING)
        words = [
            (name.lower(), index)
            for index, name in enumerate(subject)
            if index not in (nobody, nothing)
        ]
        words += [(noun, nobody) for noun in captions.NAMELESS]
        words += [(noun, nothing) for noun in ("the background", "an empty background")]
        return {
            "subject": words,
            "scene": [(scene, index) for index, scene in enumerate(captions.SCENES)],
        }

    @staticmethod
    def _tensor(images: np.ndarray) -> Tensor:
        if images.ndim != 4 or images.shape[1:] != (96, 96, 3):
            raise ValueError(f"the judge reads pictures of 96 x 96 x 3, not {images.shape[1:]}")
        return signed(images)
