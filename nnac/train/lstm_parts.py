"""What an LSTM of integers runs on, as records: its packed constants (`Direction`), and what a pass over a sequence
leaves (`Trace`).
"""

from __future__ import annotations

import ctypes
from typing import TypeVar

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith
from nnac.train import native
from nnac.train.integers import Rescale, packed

_LANES = 16                     # cells in a tile of the native loop
T = TypeVar("T")


def there(value: T | None) -> T:
    """A part that this variant has."""
    assert value is not None, "a part that this variant of the LSTM has not"
    return value


@frozen(eq=False)
class Tiles:
    """A recurrent kernel as the native loop reads it: tiles of 16 cells, their four gates side by side.  Row
    constants [tiles, 4, 16] int64.
    """

    library: ctypes.CDLL
    weights: Tensor
    width: int
    multiplier: Tensor
    shift: Tensor
    bias: Tensor
    multiplier2: Tensor
    shift2: Tensor
    bias2: Tensor

    @classmethod
    def of(cls, codes: Tensor, first: Rescale, second: Rescale | None) -> Tiles:
        """codes [4H, R] integers of int8 range.  Some processors multiply h + 128: what that adds to a row goes off
        its bias.
        """
        rows, width = codes.shape
        tiles = -(-rows // (4 * _LANES))
        library, sizes = native.loaded(), (ctypes.c_int64(rows // 4), ctypes.c_int64(width))
        bytes_, packed = codes.to(torch.int8).contiguous(), torch.empty(library.nnac_packed(*sizes), dtype=torch.int8)
        fold = torch.empty(rows, dtype=torch.int32)
        library.nnac_pack(*(ctypes.c_void_p(t.data_ptr()) for t in (bytes_, packed, fold)), *sizes)

        def tiled(v: Tensor, fill: int) -> Tensor:
            room = torch.full((4, tiles * _LANES), fill, dtype=torch.int64)
            room[:, : rows // 4] = v.expand(rows).view(4, -1)
            return room.view(4, tiles, _LANES).transpose(0, 1).contiguous()

        other = first if second is None else second
        return cls(
            library,
            packed,
            width,
            tiled(first.multiplier, 0),
            tiled(first.shift, 1),
            tiled(first.bias + (fold if second is None else 0), 0),
            tiled(other.multiplier, 0),
            tiled(other.shift, 1),
            tiled(other.bias + fold, 0),
        )


@frozen(eq=False)
class Projection:
    """The recurrent projection of an LSTMP: ``requantise(codes h + bias)``.

    matrix  `packed` codes      rescale  to the fed-back format
    hidden_scale  real value of one code of what is fed back
    """

    matrix: Tensor
    rescale: Rescale
    hidden_scale: float


@frozen(eq=False)
class Direction:
    """All the integers of one direction of an LSTM, ready to run.

    variant   acc32 | sum16      input  `packed` matrix      recurrent  `packed` matrix, or what the native loop wants
    first     acc32: the one rescaling, bias included; sum16: that of the input product
    second    sum16: the recurrent one       hidden    rescaling of o tanh(c')        fraction  of the cell
    hidden_scale  real value of one code of o tanh(c')
    project   what stands between o tanh(c') and the hidden state that is fed back, or None
    """

    variant: str
    input: Tensor
    recurrent: Tensor | Tiles
    first: Rescale
    second: Rescale | None
    hidden: Rescale
    fraction: int
    hidden_scale: float
    project: Projection | None = None

    @property
    def native(self) -> bool:
        """Whether the native loop runs it."""
        return isinstance(self.recurrent, Tiles)

    @property
    def carrier(self) -> torch.dtype:
        """In which type the hidden integers o tanh(c') are kept."""
        return torch.int8 if isinstance(self.recurrent, Tiles) else self.recurrent.dtype

    @classmethod
    def of(
        cls,
        variant: str,
        input_codes: Tensor,
        recurrent_codes: Tensor,
        input_bits: int,
        hidden_bits: int,
        first: Rescale,
        second: Rescale | None,
        hidden: Rescale,
        fraction: int,
        hidden_scale: float,
        whole: bool = True,
        project: Projection | None = None,
    ) -> Direction:
        """From codes (float32 integers of int8 range); takes the native loop where there is one.  ``whole`` as in
        `packed`.
        """
        matrix = packed(input_codes, input_bits, 8, whole)
        fast = (
            whole
            and input_codes.device.type == "cpu"
            and hidden_bits <= 8
            and hidden.bits <= 8
            and native.library() is not None
        )
        recurrent = Tiles.of(recurrent_codes, first, second) if fast else packed(recurrent_codes, hidden_bits, 8, whole)
        return cls(variant, matrix, recurrent, first, second, hidden, fraction, hidden_scale, project)


@frozen(eq=False)
class Trace:
    """What a forward pass leaves behind for the backward one.

    cell_outputs   [T, B, H] integers o tanh(c') (int8, or the carrier of the recurrent product)
    cells          int16 [T, B, H]
    pre            int16 [T, B, 4H]      uncut  which cell outputs were not cut, bool, or None if none can be
    cut_input, cut_recurrent    sum16: where a product saturated
    projected, projected_uncut  [T, B, R] the projections, float32, and which of them were not cut; None without
    projection
    """

    cell_outputs: Tensor
    cells: Tensor
    pre: Tensor
    uncut: Tensor | None = None
    cut_input: Tensor | None = None
    cut_recurrent: Tensor | None = None
    projected: Tensor | None = None
    projected_uncut: Tensor | None = None

    @property
    def hidden(self) -> Tensor:
        """What is fed back and leaves the layer, [T, B, R]."""
        return self.cell_outputs if self.projected is None else self.projected

    def step(self, t: int) -> Trace:
        """The same memory, one step of it."""
        at = slice(t, t + 1)
        return Trace(self.cell_outputs[at], self.cells[at], self.pre[at], *(None if v is None else v[at] for v in (
            self.uncut, self.cut_input, self.cut_recurrent)))

    @classmethod
    def empty(cls, at: Tensor, cells: int, d: Direction) -> Trace:
        """Room for a sequence whose input product is ``at`` [T, B, 4H]."""
        make = lambda width, of: torch.empty(*at.shape[:2], width, dtype=of, device=at.device)  # noqa: E731
        never_cut = d.hidden_scale * arith.limits(d.hidden.bits)[1] >= 1.0           # |o tanh(c')| < 1
        cuts = [make(4 * cells, torch.bool) if d.variant == "sum16" else None for _ in range(2)]
        projected = (
            [] if d.project is None else [make(d.project.matrix.shape[1], of) for of in (torch.float32, torch.bool)]
        )
        return cls(make(cells, d.carrier), make(cells, torch.int16), make(4 * cells, torch.int16),
                   None if never_cut else make(cells, torch.bool), *cuts, *projected)
