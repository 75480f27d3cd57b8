"""The LSTM's time loop and the elementwise half of its backward step, by the native library.

The same integers as the PyTorch spelling in `nnac.train.kernels`; the gradients are the same formulas.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from nnac import arith
from nnac.train.lstm_parts import Direction, Tiles, Trace
from nnac.train.native import loaded, words


class _Forward(ctypes.Structure):
    _fields_ = [
        (n, ctypes.c_int64)
        for n in (
            "steps",
            "batch",
            "cells",
            "width",
            "separate",
            "fraction",
            "hidden_multiplier",
            "hidden_shift",
            "hidden_low",
            "hidden_high",
        )
    ] + [
        (n, ctypes.c_void_p)
        for n in (
            "input",
            "weights",
            "multiplier",
            "shift",
            "bias",
            "multiplier2",
            "shift2",
            "bias2",
            "sigmoid",
            "tanh",
            "tanh_cell",
            "hidden",
            "cell",
            "pre",
            "cs",
            "hs",
            "uncut",
            "cut_input",
            "cut_recurrent",
            "scratch",
        )
    ]


@cache
def _tables(fraction: int) -> tuple[Tensor, ...]:
    return tuple(
        words(torch.as_tensor(t.entries))
        for t in (arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(fraction))
    )


def _pointer(t: Tensor | None) -> int | None:
    assert t is None or t.is_contiguous()
    return None if t is None else t.data_ptr()


def forward(at: Tensor, hidden: Tensor, cell: Tensor, d: Direction, trace: Trace) -> None:
    """The time loop: fills ``trace`` from the input product ``at`` int32 [T, B, 4H] and the state before."""
    (steps, batch, _), cells, tiles = at.shape, cell.shape[1], d.recurrent
    assert isinstance(tiles, Tiles), "packed for the native loop"
    low, high = arith.limits(d.hidden.bits)
    tables = _tables(d.fraction)
    kept = [
        at.contiguous(),
        hidden.to(torch.int8).contiguous(),
        cell.to(torch.int16).contiguous(),
        torch.empty(tiles.library.nnac_scratch(ctypes.c_int64(batch), ctypes.c_int64(tiles.width)), dtype=torch.uint8),
    ]
    tiles.library.nnac_forward(
        ctypes.byref(
            _Forward(
                steps,
                batch,
                cells,
                tiles.width,
                d.variant == "sum16",
                d.fraction,
                int(d.hidden.multiplier),
                int(d.hidden.shift),
                low,
                high,
                *(
                    _pointer(t)
                    for t in (
                        kept[0],
                        tiles.weights,
                        tiles.multiplier,
                        tiles.shift,
                        tiles.bias,
                        tiles.multiplier2,
                        tiles.shift2,
                        tiles.bias2,
                        *tables,
                        kept[1],
                        kept[2],
                        trace.pre,
                        trace.cells,
                        trace.cell_outputs,
                        trace.uncut,
                        trace.cut_input,
                        trace.cut_recurrent,
                        kept[3],
                    )
                ),
            )
        )
    )


class Backward:
    """The elementwise half of a backward step: reads dy[step] and dh, replaces dc, fills dz[step]."""

    def __init__(
        self, dy: Tensor, dh: Tensor, dc: Tensor, dz: Tensor, cell: Tensor, trace: Trace, d: Direction
    ) -> None:
        self.batch, self.cells = dc.shape
        self.dy, self.dh, self.dc, self.dz, self.trace, self.d = dy, dh, dc, dz, trace, d
        self.cell = cell.to(torch.int16).contiguous()
        self.tables = [ctypes.c_void_p(_pointer(t)) for t in _tables(d.fraction)]
        self.function = loaded().nnac_backward
        self.shape = (ctypes.c_int64(self.batch), ctypes.c_int64(self.cells), ctypes.c_float(1.0 / d.hidden_scale),
                      ctypes.c_float(2.0**-d.fraction))
        assert all(t.is_contiguous() and t.dtype == torch.float32 for t in (dy, dh, dc, dz))

    def __call__(self, step: int) -> None:
        p, n, t = ctypes.c_void_p, self.batch * self.cells, self.trace
        before = self.cell.data_ptr() if step == 0 else t.cells.data_ptr() + 2 * n * (step - 1)
        self.function(
            *self.shape,
            p(self.dy.data_ptr() + 4 * n * step),
            p(self.dh.data_ptr()),
            p(self.dc.data_ptr()),
            p(self.dz.data_ptr() + 16 * n * step),
            p(t.pre.data_ptr() + 8 * n * step),
            p(t.cells.data_ptr() + 2 * n * step),
            p(before),
            p(None if t.uncut is None else t.uncut.data_ptr() + n * step),
            *self.tables,
        )
