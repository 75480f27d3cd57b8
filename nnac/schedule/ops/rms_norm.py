"""Norm by the root mean square, a vector at a time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nnac.ir import Node, Value
from nnac.schedule.ops import Made
from nnac.schedule.ops.layer_norm import LayerNormEmission, parameters


class RmsNormEmission(LayerNormEmission):
    """LN that takes no mean off, with biases of zero."""

    rms: ClassVar[int] = 1

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        return parameters(c["gain"], np.zeros(len(c["gain"]), np.int32), epsilon=c["epsilon"],
                          root_width=c["root_width"], multiplier=c["multiplier"], shift=c["shift"], bits=out.bits,
                          zero_point=out.zero_point)
