"""Features and real pictures of the distances between sets of pictures: `evaluation.distances`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mace_exp.data.files import image_files
from mace_exp.models.auxiliary import auxiliary_identity, check_auxiliary
from mace_exp.utils.ranges import WHOLE

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.vision import VisionEncoder

KEY = "evaluation.distances"


@dataclass(kw_only=True)
class DistancesConfig:
    """Features and real pictures of the metrics fid, kid, cmmd and perceptual."""

    encoder: str | None  # CLIP, DINO, ViT ..., a folder or a hub id; null: the judge's features
    allow_download: bool  # download a hub id that is not in the local cache
    real_images: str | None  # folder of real pictures to compare with, in addition
    batch_size: Annotated[int, WHOLE]  # pictures that the encoder reads at once

    def problems(self) -> Iterator[str]:
        """Yield a message for an encoder or real pictures that are missing or unusable."""
        if self.encoder is not None:
            try:
                check_auxiliary(self.encoder, allow_download=self.allow_download)
            except ValueError as error:
                yield f"{KEY}.encoder = {self.encoder} {error}"
        if self.real_images is None:
            return
        try:
            if len(self.real_files()) < 2:
                yield f"{KEY}.real_images = {self.real_images} has one picture: two are needed"
        except (OSError, ValueError) as error:
            yield f"{KEY}.real_images = {self.real_images}: {error}"

    def real_files(self) -> list[Path]:
        """Return the real pictures, sorted by name; empty if no folder is set.

        Raises:
            ValueError: no such folder, no picture in it, or one that can't be read.
        """
        if self.real_images is None:
            return []
        folder = Path(self.real_images).expanduser()
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        return image_files(folder)

    def open(self, device: str) -> VisionEncoder | None:
        """Load the encoder; None where the judge's features are taken. Imports transformers.

        Raises:
            ValueError: it can't be loaded.
        """
        if self.encoder is None:
            return None
        from mace_exp.evaluation.recognisers.vision import VisionEncoder

        return VisionEncoder.load(
            f"{KEY}.encoder",
            self.encoder,
            allow_download=self.allow_download,
            device=device,
            batch_size=self.batch_size,
        )

    def inputs(self) -> dict[str, Any]:
        """Return the inputs of cache keys. Settings left at null are omitted, so that older keys
        stay valid."""
        found: dict[str, Any] = {}
        if self.encoder is not None:
            found["encoder"] = auxiliary_identity(self.encoder)
        if self.real_images is not None:
            files = self.real_files()
            found["real_images"] = [
                (each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files
            ]
        return found


@dataclass(frozen=True)
class Comparison:
    """Settings with the device that the encoder runs on."""

    config: DistancesConfig
    device: str
