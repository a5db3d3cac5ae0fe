"""Which image files the settings name: found, with their masks, before anything heavy is imported.

The command line refuses what is not there, and the stages read what is, through the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mace_exp.concepts.concept import UNMASKED, Concept
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.data.files import (
    Size,
    UserImage,
    check_size,
    concept_files,
    image_files,
    image_size,
    listed_files,
    mask_folder,
    named_folder,
    numbered_files,
    with_masks,
)
from mace_exp.data.schema import (
    FolderImages,
    FolderPriorImages,
    GeneratedImages,
    ImagesConfig,
    ListedPriorImages,
    MasksConfig,
    PrecomputedMasks,
    PriorImagesConfig,
)


def own_images(concept: Concept, images: FolderImages, masks: MasksConfig) -> list[UserImage]:
    """Return the user's images of a concept, with their masks where `masks` are precomputed.

    Kinds that fill the image need none.

    Raises:
        ValueError: what is missing, can't be read, or does not fit, with its path.
    """
    names = (concept.name, concept.slug)
    files = concept_files(Path(images.path), names, count=images.per_concept)
    for file in files:
        if file.prompt is not None:
            anchor_prompt(file.prompt, concept)  # refuses a prompt without the concept
    if concept.kind in UNMASKED or not isinstance(masks, PrecomputedMasks):
        return files
    if masks.path is None:
        folder, place = mask_folder(files), f"'{files[0].image.parent.name} mask' beside it"
    else:
        folder, place = named_folder(Path(masks.path), names), f"{masks.path}/{concept.name}"
    if folder is None:
        raise ValueError(f"{files[0].image.parent} has no masks: they belong into {place}")
    return with_masks(files, folder)


def drawn_masks(
    concept: Concept, images: ImagesConfig, masks: MasksConfig, size: Size | None
) -> list[Path]:
    """Return the mask files of the images that the model draws of a concept, in their order.

    None where masks are not made elsewhere, and for kinds that fill the image. `size` is that of
    the images, (height, width), where it is known.

    Raises:
        ValueError: no folder called like the concept or its slug, or a mask that is missing, is no
            image, or has another size.
    """
    if not isinstance(images, GeneratedImages) or not isinstance(masks, PrecomputedMasks):
        return []
    if concept.kind in UNMASKED or masks.path is None:
        return []
    folder = named_folder(Path(masks.path), (concept.name, concept.slug))
    if folder is None:
        raise ValueError(
            f"{masks.path} has no folder {concept.name!r} or {concept.slug!r} with the masks of "
            f"this concept's images, 0.png to {images.per_concept - 1}.png"
        )
    files = numbered_files(folder, images.per_concept)
    for file in files:
        found = image_size(file)
        check_size(file, found, size or found)
    return files


def prior_files(prior: PriorImagesConfig) -> list[UserImage]:
    """Return the class images, each with its prompt; none where there are none. Raises as above."""
    match prior:
        case FolderPriorImages(path=path, prompt=prompt):
            if not Path(path).is_dir():
                raise ValueError(f"prior_images.path = {path} is no folder")
            return [UserImage(image, prompt) for image in image_files(Path(path))]
        case ListedPriorImages(images=images, prompts=prompts):
            return listed_files(Path(images), Path(prompts))
    return []


def missing_images(
    concepts: Sequence[Concept],
    images: ImagesConfig,
    masks: MasksConfig,
    *,
    drawn: Size | None = None,
) -> Iterator[str]:
    """Yield a message for each concept whose own images or masks are not there.

    `drawn` is the size of the images that the model draws, where it is known.
    """
    missing = list(_missing_masks(images, masks))
    yield from missing
    if missing:
        return
    for concept in concepts:
        try:
            if isinstance(images, FolderImages):
                own_images(concept, images, masks)
            else:
                drawn_masks(concept, images, masks, drawn)
        except ValueError as error:
            own = isinstance(images, FolderImages)
            yield f"images.path = {images.path}: {error}" if own else f"masks.path: {error}"


def missing_prior_images(prior: PriorImagesConfig) -> Iterator[str]:
    """Yield a message where class images are not there."""
    try:
        prior_files(prior)
    except ValueError as error:
        yield f"prior_images: {error}"


def _missing_masks(images: ImagesConfig, masks: MasksConfig) -> Iterator[str]:
    if not isinstance(masks, PrecomputedMasks):
        return
    if masks.path is None and not isinstance(images, FolderImages):
        yield (
            "masks.path is not set: give masks.path=<folder> with <concept>/<index>.png in it; "
            "only images of your own (images=folder) have masks beside them"
        )
    elif masks.path is not None and not Path(masks.path).is_dir():
        yield f"masks.path = {masks.path} is no folder: name the one that holds the masks"
