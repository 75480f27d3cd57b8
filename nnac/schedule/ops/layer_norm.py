"""Layer norm, a vector at a time."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nnac import isa
from nnac.ir import Node, Value
from nnac.schedule.emit import Emitter
from nnac.schedule.layout import ROOTS
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock
from nnac.schedule.ops._roots import WithRoots
from nnac.vectors import align


class LayerNormEmission(WithRoots, OneBlock):
    """LN."""

    rms: ClassVar[int] = 0

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        bias = c["bias"] if "bias" in c else np.zeros(len(c["gain"]), np.int32)
        return parameters(c["gain"], bias, epsilon=c["epsilon"], root_width=c["root_width"],
                          multiplier=c["multiplier"], shift=c["shift"], bits=out.bits, zero_point=out.zero_point)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        for t in range(y.vectors):
            e.put(isa.LN(src=x.at(t), dst=y.at(t), params=e.parameters(f"{node.path}.parameters"),
                         roots=e.parameters(ROOTS), n=y.form.width, a16=int(x.form.size == 2),
                         out16=int(y.form.size == 2), rms=self.rms), "normalise")


def parameters(gain: NDArray, bias: NDArray, **numbers: Any) -> bytes:
    """LN's parameters; ``numbers`` of its record."""
    wide = gain.astype("<i2").tobytes()
    return isa.LN.block.pack(**numbers) + wide.ljust(align(len(wide)), b"\0") + bias.astype("<i4").tobytes()
