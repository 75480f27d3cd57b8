"""A user's model prepared, and every integer of it the same whatever runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import nnac
from nnac import tensors
from nnac.executors import Subject
from nnac.train.prepare import PreparedModule
from tests.test_capture import POLICY


def prepared(model: nn.Module, example: tuple[Tensor, ...]) -> PreparedModule:
    """Prepared on an example, and calibrated on the same."""
    model.eval()
    module = nnac.prepare(model, POLICY, example)
    module.calibrate([example])
    return module


def agree(module: Any, example: tuple[Tensor, ...], folder: Path) -> None:
    """The saved module has the same integers in PyTorch, on the machine and as ONNX."""
    pytest.importorskip("onnxruntime")
    module.save(folder / "m.nnc")
    subject = Subject.load(folder / "m.nnc")
    arrays = {a.name: x.numpy() for a, x in zip(subject.tensors.read, example, strict=True)}
    for engine in ("emulator", "onnx"):
        found = tensors.compare(subject, subject, arrays, ("torch", engine))
        assert found.compared and not found.different, engine
