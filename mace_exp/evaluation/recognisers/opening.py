"""Load a face detector or a face recogniser by its setting."""

from __future__ import annotations

from mace_exp.evaluation.judges.base import JudgeError
from mace_exp.evaluation.judges.packages import onnx_file
from mace_exp.evaluation.recognisers.faces import BoxedFaces, FaceDetector
from mace_exp.evaluation.recognisers.identities import Embedder, OnnxEmbedder
from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
from mace_exp.evaluation.recognisers.yolo import YoloDetector
from mace_exp.evaluation.recognisers.yunet import YunetDetector, is_yunet

YOLO_SIDE, YOLO_BATCH = 320, 16
"""Input size in pixels of NudeNet's detector and of networks without a fixed one; batch size."""


def face_detector(source: str, *, device: str, floor: float) -> FaceDetector:
    """Return NudeNet's detector, or that in an ONNX file: YuNet, or YOLOv8 with a class "face...".

    Raises:
        JudgeError: the file can't be loaded, or is neither.
    """
    network = OnnxNetwork(onnx_file(source), device)
    if is_yunet(network.outputs):
        return YunetDetector(network, floor=floor)
    faces = [each for each in network.class_names if each.casefold().startswith("face")]
    if not faces:
        raise JudgeError(
            f"judge.detector = {source} has the outputs {', '.join(network.outputs)} and the "
            f"classes {', '.join(network.class_names) or 'none'}: YuNet, or YOLOv8 with a class "
            '"face", is expected'
        )
    return BoxedFaces(
        YoloDetector(network, side=YOLO_SIDE, floor=floor, blue_first=False, batch_size=YOLO_BATCH)
    )


def face_recogniser(source: str, *, device: str, batch_size: int, allow_download: bool) -> Embedder:
    """Return a recogniser in an ONNX file, or a transformers model.

    Raises:
        JudgeError: it can't be loaded.
    """
    if source.endswith(".onnx"):
        return OnnxEmbedder(OnnxNetwork(onnx_file(source), device), batch_size)
    from mace_exp.evaluation.recognisers.vision import VisionEncoder

    return VisionEncoder.load(
        "judge.recogniser",
        source,
        allow_download=allow_download,
        device=device,
        batch_size=batch_size,
    )
