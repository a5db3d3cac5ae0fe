"""Class images: all images of a folder, under one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mace_exp.data.files import UserImage
from mace_exp.data.folders import image_files, left_out
from mace_exp.data.prior_images.base import GivenPriorImages


@dataclass(kw_only=True)
class FolderPriorImages(GivenPriorImages):
    """All images of a folder, under one prompt."""

    path: str
    prompt: str

    def files(self) -> list[UserImage]:
        if not Path(self.path).is_dir():
            raise ValueError(f"prior_images.path = {self.path} is not a folder")
        return [UserImage(image, self.prompt) for image in image_files(Path(self.path))]

    def left_out(self) -> list[Path]:
        return left_out(Path(self.path), image_files(Path(self.path)))
