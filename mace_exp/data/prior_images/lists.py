"""Class images: two text files, with one path and one prompt per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mace_exp.data.files import UserImage, listed_files
from mace_exp.data.prior_images.base import GivenPriorImages


@dataclass(kw_only=True)
class ListedPriorImages(GivenPriorImages):
    """Two text files: one path per line, relative to the list, and one prompt per line."""

    images: str
    prompts: str

    def files(self) -> list[UserImage]:
        return listed_files(Path(self.images), Path(self.prompts))
