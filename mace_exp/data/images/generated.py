"""Training images that the model itself draws before it is edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.concept import Concept
from mace_exp.data.files import Size, check_size, image_size, named_folder, numbered_files
from mace_exp.data.images.base import Drawing, ImagesConfig
from mace_exp.utils.ranges import NONNEGATIVE, WHOLE
from mace_exp.utils.seeding import short_seed

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks
    from mace_exp.data.training_images import TrainingImages
    from mace_exp.models.model import Model
    from mace_exp.models.sampling import SamplingSettings


@dataclass(kw_only=True)
class GeneratedImages(ImagesConfig):
    """Drawn by the model itself before it is edited."""

    concept_keys: ClassVar[tuple[str, ...]] = ("per_concept", "seed")
    drawn: ClassVar[bool] = True

    per_concept: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]

    def mask_problems(self, concept: Concept, path: str | None, size: Size | None) -> Iterator[str]:
        try:
            for file in generated_masks(concept, path, self.per_concept):
                found = image_size(file)
                check_size(file, found, size or found)
        except ValueError as error:
            yield f"masks.path: {error}"

    def of(self, concept: Concept, prompts: Sequence[str], drawing: Drawing) -> DrawnImages:
        count = range(self.per_concept)
        return DrawnImages(
            concept=concept,
            prompts=[prompts[index % len(prompts)] for index in count],
            seeds=image_seeds(self.seed, concept.slug, self.per_concept),
            sampling=drawing.sampling,
            checked=drawing.checked,
        )


@dataclass(frozen=True, kw_only=True)
class DrawnImages:
    """One image per prompt and seed, drawn with the model as it is."""

    concept: Concept
    prompts: list[str]
    seeds: list[int]
    sampling: SamplingSettings
    checked: bool

    def inputs(self, model: Model) -> Mapping[str, Any]:
        return model.drawn_by(checked=self.checked) | {
            "prompts": self.prompts,
            "seeds": self.seeds,
            "sampling": asdict(self.sampling) | {"batch_size": None},
        }

    def make(self, model: Model, advance: Callable[[int], object]) -> TrainingImages:
        from mace_exp.data.training_images import draw_images

        return draw_images(
            model.pipeline,
            self.prompts,
            self.seeds,
            self.sampling,
            checked=self.checked,
            progress=advance,
        )

    def names(self, entry: Path) -> list[str]:
        return [str(entry / f"{index:04d}.png") for index in range(len(self.seeds))]

    def mask_files(self, path: str | None) -> list[Path]:
        files = generated_masks(self.concept, path, len(self.seeds))
        for file in files:
            check_size(file, image_size(file), self._size())
        return files

    def read_masks(self, files: Sequence[Path]) -> Masks:
        from mace_exp.data.masks.pixels import load_masks

        return load_masks(files, self._size())

    def unread_masks(self) -> Path | None:
        return None

    def _size(self) -> Size:
        assert self.sampling.height is not None and self.sampling.width is not None
        return self.sampling.height, self.sampling.width


def generated_masks(concept: Concept, path: str | None, count: int) -> list[Path]:
    """Return the mask files of a concept's drawn images, in their order.

    Raises:
        ValueError: no path, no folder named like the concept or its slug, or a mask is missing.
    """
    if path is None:
        raise ValueError(f"no folder is given for the masks of {concept.name!r}")
    folder = named_folder(Path(path), (concept.name, concept.slug))
    if folder is None:
        raise ValueError(
            f"{path} has no folder {concept.name!r} or {concept.slug!r} with the masks of "
            f"this concept's images, 0.png to {count - 1}.png"
        )
    return numbered_files(folder, count)


def image_seeds(seed: int, scope: str, count: int) -> list[int]:
    """Return one seed per image, from the run's seed and the concept's slug."""
    return [short_seed(seed, "images", scope, index) for index in range(count)]
