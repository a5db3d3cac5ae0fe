"""Networks in ONNX files, run by onnxruntime: the only module that imports it."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mace_exp.evaluation.judges.base import JudgeError


class OnnxNetwork:
    """A network with one input [n, 3, H, W], float32."""

    def __init__(self, file: Path, device: str) -> None:
        """Load a file; `device` is the run's; it falls back to the CPU if onnxruntime supports no
        other.

        Raises:
            JudgeError: it can't be read, or has another input.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        options.log_severity_level = 3  # errors only
        there = onnxruntime.get_available_providers()
        wanted = ["CUDAExecutionProvider"] if device in ("auto", "cuda") else []
        providers = [each for each in (*wanted, "CPUExecutionProvider") if each in there]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers)
        except Exception as error:  # onnxruntime has a separate class for each kind of error
            raise JudgeError(f"{file} can't be loaded by onnxruntime: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise JudgeError(
                f"{file} takes {[each.shape for each in inputs]}: one input [n, 3, height, width] "
                "is expected"
            )
        self.file, self._input = file, inputs[0]

    @property
    def side(self) -> int | None:
        """Fixed input height and width; None: any."""
        height = self._input.shape[2]
        return height if isinstance(height, int) else None

    @property
    def class_names(self) -> list[str]:
        """The class names in the file's metadata, as Ultralytics writes them; empty without any."""
        found: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        try:
            names = ast.literal_eval(found.get("names", "{}"))
            return [str(names[index]) for index in range(len(names))]
        except (ValueError, SyntaxError, KeyError, TypeError):
            return []

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return [each.name for each in self._session.get_outputs()]

    def __call__(self, batch: np.ndarray) -> list[Any]:
        """Return the outputs for a batch [n, 3, H, W], float32; one by one if its batch size is
        fixed to 1.

        Raises:
            JudgeError: the network fails.
        """
        fixed = self._input.shape[0] == 1 and len(batch) > 1
        pieces = [batch[i : i + 1] for i in range(len(batch))] if fixed else [batch]
        try:
            found = [self._session.run(None, {self._input.name: piece}) for piece in pieces]
        except Exception as error:
            raise JudgeError(f"{self.file} failed on a batch {batch.shape}: {error}") from error
        return [np.concatenate(each) for each in zip(*found, strict=True)]
