"""A model of integers loaded into onnxruntime: values and states in, values and states out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from onnx import ModelProto

from nnac.onnx.model import AFTER


@frozen(eq=False)
class Session:
    """``(values, states) -> (values, states)``, all in int64 outside and int32 inside."""

    loaded: Any
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: ModelProto, threads: int = 1) -> Session:
        """On the processor, with so many threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        loaded = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return cls(loaded, tuple(o.name for o in loaded.get_outputs()))

    def __call__(self, values: Mapping[str, NDArray], states: Mapping[str, NDArray]) -> tuple[dict[str, NDArray],
                                                                                              dict[str, NDArray]]:
        given = {k: np.asarray(v, np.int32) for k, v in {**values, **states}.items()}
        made = {k: np.asarray(v, np.int64) for k, v in zip(self.outputs, self.loaded.run(None, given), strict=True)}
        after = {k: made.pop(k + AFTER) for k in states}
        return made, after
