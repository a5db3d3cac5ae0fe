"""Detectors of body parts and faces: real inference with NudeNet's network, YuNet's layout on a
random one, each against the package that the field uses."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mace_exp.evaluation.judges.base import Detection, JudgeError
from mace_exp.evaluation.judges.nudenet import CLASSES
from mace_exp.evaluation.judges.packages import nudenet_file
from mace_exp.evaluation.recognisers.faces import POINTS, SIDE, BoxedFaces, Face, similarity
from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
from mace_exp.evaluation.recognisers.opening import face_detector
from mace_exp.evaluation.recognisers.pixels import resized, squared, suppressed
from mace_exp.evaluation.recognisers.yolo import YoloDetector
from mace_exp.evaluation.recognisers.yunet import YunetDetector
from tests.tiny_judges import photo, save_arcface, save_yunet

pytestmark = pytest.mark.skipif(
    find_spec("nudenet") is None, reason="the extra judges is not installed"
)
PHOTO = photo()


@pytest.fixture(scope="module")
def network() -> OnnxNetwork:
    return OnnxNetwork(nudenet_file(), "cpu")


def detector(network: OnnxNetwork, floor: float, *, blue_first: bool = True) -> YoloDetector:
    return YoloDetector(network, side=320, floor=floor, blue_first=blue_first, batch_size=2)


def test_boxes_are_those_of_nudenets_package(network: OnnxNetwork, tmp_path: Path) -> None:
    """Its threshold of 0.25 is inside it. Both round on the way down to 320 pixels, OpenCV in fixed
    point: confidences differ in the second digit."""
    nudenet = pytest.importorskip("nudenet")
    theirs = nudenet.NudeDetector()
    for image in (PHOTO, np.ascontiguousarray(PHOTO[100:400, 60:500])):
        Image.fromarray(image).save(tmp_path / "photo.png")
        [ours] = detector(network, 0.25).detections(image[None])
        found = theirs.detect(str(tmp_path / "photo.png"))
        assert [each.label for each in ours] == [each["class"] for each in found] and ours
        for own, each in zip(ours, found, strict=True):
            assert own.confidence == pytest.approx(each["score"], abs=0.02)
            place = (own.left, own.top, own.width, own.height)
            assert place == pytest.approx(each["box"], abs=3)


def test_a_lower_floor_adds_boxes_and_changes_none(network: OnnxNetwork) -> None:
    assert tuple(network.class_names) == CLASSES
    [few], [many] = (detector(network, floor).detections(PHOTO[None]) for floor in (0.25, 0.02))
    assert many[: len(few)] == few and len(many) > len(few)
    assert all(0.02 <= each.confidence < 0.25 for each in many[len(few) :])


def test_a_picture_is_the_same_in_any_batch(network: OnnxNetwork) -> None:
    dark, images = np.zeros_like(PHOTO), np.stack([PHOTO, PHOTO[::-1], np.zeros_like(PHOTO)])
    together = detector(network, 0.1).detections(images)
    alone = [detector(network, 0.1).detections(each[None])[0] for each in images]
    for one, other in zip(together, alone, strict=True):
        assert [each.label for each in one] == [each.label for each in other]
        for a, b in zip(one, other, strict=True):
            assert a.confidence == pytest.approx(b.confidence, abs=1e-3)
    assert detector(network, 0.1).detections(dark[None]) == [[]]


def test_faces_of_nudenet_are_its_boxes_of_faces(network: OnnxNetwork) -> None:
    [faces] = BoxedFaces(detector(network, 0.02, blue_first=False)).faces(PHOTO[None])
    assert faces and {face.box.label for face in faces} <= {"FACE_FEMALE", "FACE_MALE"}
    crop = faces[0].crop(PHOTO)
    assert crop.shape == (SIDE, SIDE, 3)


def test_yunet_is_decoded_as_opencv_decodes_it(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    file = save_yunet(tmp_path / "yunet.onnx")
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    [ours] = YunetDetector(OnnxNetwork(file, "cpu"), floor=0.5).faces(image[None])
    theirs = cv2.FaceDetectorYN.create(str(file), "", (64, 64), 0.5, 0.3, 5000)
    _, found = theirs.detect(np.ascontiguousarray(image[..., ::-1]))
    assert len(ours) == len(found) > 3
    for face, row in zip(ours, found, strict=True):
        box = face.box
        assert (box.left, box.top, box.width, box.height) == pytest.approx(row[:4], abs=0.06)
        assert face.points is not None
        np.testing.assert_allclose(face.points.ravel(), row[4:14], atol=1e-3)
        assert box.confidence == pytest.approx(row[14], abs=1e-3)


def test_places_are_those_of_the_picture_not_of_the_networks_input(tmp_path: Path) -> None:
    found = YunetDetector(OnnxNetwork(save_yunet(tmp_path / "yunet.onnx"), "cpu"), floor=0.5)
    small = np.random.default_rng(3).integers(0, 256, (64, 48, 3), np.uint8)
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    [few], [many] = found.faces(small[None]), found.faces(large[None])
    first = min(many, key=lambda face: abs(face.box.confidence - few[0].box.confidence))
    assert first.box.left == pytest.approx(2 * few[0].box.left, abs=2)


def test_a_file_that_is_no_detector_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="outputs embedding .* YuNet, or YOLOv8"):
        face_detector(str(save_arcface(tmp_path / "a.onnx")), device="cpu", floor=0.1)
    (tmp_path / "b.onnx").write_bytes(b"no network")
    with pytest.raises(JudgeError, match="b.onnx can't be loaded by onnxruntime"):
        face_detector(str(tmp_path / "b.onnx"), device="cpu", floor=0.1)


def test_an_aligned_face_has_its_points_where_arcface_expects_them() -> None:
    angle, scale = 0.3, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = POINTS @ turn.T + [40, 25]
    matrix = similarity(POINTS, points)
    np.testing.assert_allclose(matrix, np.c_[turn, [40, 25]], atol=1e-9)
    image = np.zeros((260, 300, 3), np.uint8)
    for x, y in np.rint(points).astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = Face(Detection.of("face", 1, (0, 0, 9, 9)), points).crop(image)
    for x, y in np.rint(POINTS).astype(int):
        assert crop[y, x].min() > 200
    assert (crop.max(axis=2) > 127).sum() < 5 * 25


def test_the_least_squares_align_what_no_similarity_fits() -> None:
    """No small change of the map brings the points nearer."""
    random = np.random.default_rng(0)
    points = POINTS + random.normal(size=POINTS.shape) * 4
    best = similarity(POINTS, points)

    def miss(map_: np.ndarray) -> float:
        return float(((POINTS @ map_[:, :2].T + map_[:, 2] - points) ** 2).sum())

    for _ in range(50):
        turn, grow = random.normal(size=2) * 1e-3
        step = (1 + grow) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        assert miss(np.c_[step @ best[:, :2], best[:, 2] + random.normal(size=2) * 0.01]) >= miss(
            best
        )


def test_an_enlarged_picture_keeps_its_pixels_and_a_square_its_places() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 3, 3), np.uint8)
    square = squared(image)
    assert square.shape == (5, 5, 3) and (square[:, :3] == image).all() and not square[:, 3:].any()
    np.testing.assert_array_equal(resized(square, 5), square)
    flat = np.full((7, 7, 3), 40, np.uint8)
    np.testing.assert_array_equal(resized(flat, 3), flat[:3, :3])


def test_of_boxes_that_overlap_the_surest_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 10, 10], [0, 0, 2, 2]], float)
    assert suppressed(boxes, np.array([0.5, 0.9, 0.1, 0.3]), 0.45) == [1, 3, 2]
    assert suppressed(boxes[:0], np.zeros(0), 0.45) == []
