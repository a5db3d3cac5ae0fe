"""`judge=faces`: people by a face detector, a face recogniser and reference photos of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key
from mace_exp.data.files import image_files
from mace_exp.evaluation.judges.base import (
    DETECTIONS,
    PERSON,
    SUBJECT,
    JudgeConfig,
    JudgeTask,
)
from mace_exp.evaluation.judges.packages import (
    missing_packages,
    onnx_identity,
    onnx_problems,
    without,
)
from mace_exp.models.auxiliary import auxiliary_identity, check_auxiliary
from mace_exp.utils.hashing import file_digest
from mace_exp.utils.ranges import PROPORTION, WHOLE, Range

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.identities import IdentityJudge


@dataclass(kw_only=True)
class FacesJudge(JudgeConfig):
    """Recognises the person whose photos are most similar to a face, if the cosine similarity is at
    least `threshold`.

    The similarities are stored: another threshold needs neither pictures nor the judge.
    """

    name = "faces"
    supports = frozenset({SUBJECT, PERSON, DETECTIONS})
    scope = "the people in judge.references"
    afterwards = frozenset({"threshold", "face_threshold"})

    references: str  # a folder with a folder of photos for each person
    photos_per_person: Annotated[int, WHOLE]  # minimum
    detector: str  # nudenet: the one in NudeNet's wheel; or an ONNX file: YuNet, YOLOv8
    recogniser: str  # an ONNX file in ArcFace's layout, a transformers folder or a hub id
    allow_download: bool  # download a hub id that is not in the local cache
    floor: Annotated[float, PROPORTION]  # least confidence of a face
    face_threshold: Annotated[float, PROPORTION]  # confidence from which a picture shows a face
    threshold: Annotated[float, Range(low=-1, high=1)]  # cosine from which a person is recognised
    batch_size: Annotated[int, WHOLE]

    def __post_init__(self) -> None:
        if self.face_threshold < self.floor:
            raise ValueError(
                f"judge.face_threshold = {self.face_threshold:g} is below judge.floor = "
                f"{self.floor:g}: fainter faces are not looked at; give a lower judge.floor"
            )

    @property
    def _folder(self) -> Path:
        return Path(self.references).expanduser()

    @property
    def _is_onnx(self) -> bool:
        return self.recogniser.endswith(".onnx")

    def problems(self, subjects: Mapping[str, Kind], erased: Sequence[str]) -> Iterator[str]:
        yield from missing_packages(self.name, "onnxruntime")
        yield from onnx_problems("judge.detector", self.detector)
        if self._is_onnx:
            yield from onnx_problems("judge.recogniser", self.recogniser)
        else:
            try:
                check_auxiliary(self.recogniser, allow_download=self.allow_download)
            except ValueError as error:
                yield f"judge.recogniser = {self.recogniser} {error}"
        people = [name for name in erased if subjects[name] is Kind.person]
        yield from reference_problems(
            "judge.references", self._folder, people, least=self.photos_per_person
        )

    def inputs(self, subjects: Mapping[str, Kind]) -> Mapping[str, Any]:
        settings = without(super().inputs(subjects), "batch_size", "allow_download")
        identity = onnx_identity if self._is_onnx else auxiliary_identity
        return settings | {
            "references": references_identity(self._folder),
            "detector": onnx_identity(self.detector),
            "recogniser": identity(self.recogniser),
        }

    def known_subjects(self) -> frozenset[str]:
        return frozenset(self.known_people())

    def known_people(self) -> tuple[str, ...]:
        """Return the names of the folders, with spaces for underscores."""
        folders = person_folders(self._folder).values()
        return tuple(" ".join(each.name.replace("_", " ").split()) for each in folders)

    def metrics(self) -> Sequence[str]:
        return ("faces",)

    def min_score(self, asked: float) -> float:
        """Return the larger of `judge.threshold` and `evaluation.threshold`."""
        return max(asked, self.threshold)

    def min_person_score(self) -> float:
        return self.face_threshold

    def check(self, task: JudgeTask) -> None:
        """Check that the detector finds a face in every reference photo."""
        from mace_exp.evaluation.recognisers.identities import reference_faces
        from mace_exp.evaluation.recognisers.opening import face_detector

        detector = face_detector(self.detector, device=task.device, floor=self.floor)
        for folder in person_folders(self._folder).values():
            reference_faces(detector, photos(folder))

    def open(self, task: JudgeTask) -> IdentityJudge:
        from mace_exp.evaluation.recognisers.identities import IdentityJudge
        from mace_exp.evaluation.recognisers.opening import face_detector, face_recogniser

        people = people_of(self._folder, task.subjects)
        return IdentityJudge(
            face_detector(self.detector, device=task.device, floor=self.floor),
            face_recogniser(
                self.recogniser,
                device=task.device,
                batch_size=self.batch_size,
                allow_download=self.allow_download,
            ),
            {name: photos(folder) for name, folder in people.items()},
        )


def person_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each person by `name_key`; empty if `root` is missing."""
    if not root.is_dir():
        return {}
    found = sorted(each for each in root.iterdir() if each.is_dir())
    return {name_key(each.name): each for each in found if not each.name.startswith(".")}


def people_of(root: Path, subjects: Mapping[str, Kind]) -> dict[str, Path]:
    """Return the folder of each person by name: spelled as in the run's subjects, or else as the
    folder."""
    spelling = {name_key(name): name for name in subjects}
    return {
        spelling.get(plain, folder.name): folder for plain, folder in person_folders(root).items()
    }


def reference_problems(key: str, root: Path, people: Sequence[str], *, least: int) -> Iterator[str]:
    """Yield a message if the folder is missing, a person of `people` has no folder in it, or a
    folder holds no readable photo or fewer than `least`."""
    if not root.is_dir():
        yield f"{key} = {root} is not a folder: give one with a folder of photos for each person"
        return
    folders = person_folders(root)
    for name in people:
        if name_key(name) not in folders:
            found = ", ".join(each.name for each in list(folders.values())[:5])
            yield (
                f"{key} = {root} has no folder for {name!r}, who is erased; found: "
                f"{found or 'none'}{', ...' if len(folders) > 5 else ''}"
            )
    for folder in folders.values():
        try:
            count = len(image_files(folder))
        except ValueError as error:
            yield f"{key}: {error}"
            continue
        if count < least:
            yield (
                f"{key}: {folder} holds {count} photo{'s' if count != 1 else ''}, and "
                f"judge.photos_per_person = {least} are needed"
            )


def references_identity(root: Path) -> dict[str, list[str]]:
    """Return the checksums of each person's photos, by folder."""
    return {
        folder.name: sorted(file_digest(file) for file in photos(folder))
        for folder in person_folders(root).values()
    }


def photos(folder: Path) -> list[Path]:
    """Return the photos of a folder; empty if it holds none, which `reference_problems` reports."""
    try:
        return image_files(folder)
    except ValueError:
        return []
