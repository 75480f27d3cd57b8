"""The LSTM over a sequence, in exact integers, with a backward pass written by hand.

In:  integers [T, B, I] and the constants that `nnac.bind` makes.   Out: the hidden integers [T, B, R], as `ops.lstm` gives them, bit for bit.
What makes it fast: weights are packed once a sequence; the input product and every weight gradient are one large product outside the time
loop; int8 products run on the processor's int8 instructions, where it has them; a table is one gather of 65,536 entries.

Backward: slopes of the smooth sigmoid and tanh at the quantised inputs; none where a pre-activation or a cell stands at the
limit of int16, nor where the hidden state was cut; rounding passes the gradient on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith
from nnac.train.integers import EXACT_FLOAT64, Format, Rescale, product

_OFFSET = 32768


@frozen(eq=False)
class Tables:
    """Sigmoid and tanh as one gather: index ``pre + 32768``, plus 65536 for tanh.  Integers, their reals, and the smooth slopes."""

    integers: Tensor        # int32 [131072], Q0.15
    reals: Tensor           # float32, the same / 32768
    slopes: Tensor          # float32, zero at both limits of int16
    cell: Tensor            # int32 [65536]: tanh of the cell
    cell_reals: Tensor
    cell_slopes: Tensor     # zero at both limits


@cache
def tables(fraction: int, device: torch.device) -> Tables:
    """For a cell with ``fraction`` fraction bits."""
    sigmoid, tanh, cell = arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(fraction)
    full = lambda t: torch.as_tensor(t.full().astype("int32"))  # noqa: E731
    at = torch.arange(-_OFFSET, _OFFSET, dtype=torch.float64)
    s, t, c = torch.sigmoid(at / 4096), torch.tanh(at / 4096), torch.tanh(at / (1 << fraction))
    slopes = [s * (1 - s), 1 - t * t, 1 - c * c]
    for slope in slopes:
        slope[0] = slope[-1] = 0
    integers, cells = torch.cat([full(sigmoid), full(tanh)]), full(cell)
    unit = 2.0**-arith.UNIT_FRACTION
    return Tables(*(v.to(device) for v in (integers, integers.float() * unit, torch.cat(slopes[:2]).float(), cells, cells.float() * unit,
                                           slopes[2].float())))


@frozen(eq=False)
class Direction:
    """All the integers of one direction of an LSTM, ready to run.

    input, recurrent   `packed` matrices        variant  acc32 | sum16
    first              acc32: the one rescaling, bias included; sum16: that of the input product          second   sum16: the recurrent one
    hidden             rescaling of o tanh(c')        fraction  of the cell        hidden_scale  real value of one hidden code
    """

    variant: str
    input: Tensor
    recurrent: Tensor
    first: Rescale
    second: Rescale | None
    hidden: Rescale
    fraction: int
    hidden_scale: float


def _hidden_exact(rescale: Rescale) -> bool:
    """Whether o tanh(c') times the multiplier is exact in float64: the multiplier's odd part counts (127 for a clip of one)."""
    m = int(rescale.multiplier)
    while m and m % 2 == 0:
        m >>= 1
    return m << 30 < EXACT_FLOAT64


def hidden_rescale(constants: dict[str, Any], bits: int, device: torch.device) -> Rescale:
    """The rescaling of o tanh(c'), from `bind.hidden`."""
    r = Rescale.of(constants["hidden_multiplier"], constants["hidden_shift"], 0, 0, 0, bits, device)
    return Rescale(r.factor, r.offset, r.bias, r.multiplier, r.shift, 0, bits, not _hidden_exact(r))


class _Step:
    """Buffers of the time loop, so that a step allocates nothing."""

    def __init__(self, batch: int, cells: int, like: Tensor) -> None:
        make = lambda width, kind: torch.empty(batch, width, dtype=kind, device=like.device)  # noqa: E731
        self.wide = make(4 * cells, torch.float64)
        self.gates = make(4 * cells, torch.int32)
        self.left, self.right, self.at = (make(cells, torch.int32) for _ in range(3))
        self.hidden = make(cells, torch.float64)


@frozen(eq=False)
class Cut:
    """``sum16``: where the input product and the recurrent product saturated before they were added; bool [T, B, 4H]."""

    input: Tensor
    recurrent: Tensor


def forward(x: Tensor, hidden: Tensor, cell: Tensor, d: Direction) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Cut | None]:
    """x [T, B, I], hidden [B, R], cell [B, H] integers -> (hidden [T, B, H] in the recurrent matrix's carrier, cells int16 [T, B, H],
    table indices int32 [T, B, 4H], which hidden values were not cut, or None if none can be, and `Cut` of sum16).
    """
    steps, batch = x.shape[:2]
    cells = cell.shape[1]
    t = tables(d.fraction, x.device)
    low, high = arith.limits(16)
    at = product(x, d.input)                                                     # int32 | float32 | float64
    cut = None
    if d.variant == "sum16":
        free = d.first.unlimited(at)
        at = free.clamp(low, high).to(torch.int32)
        cut = Cut(at != free, torch.empty(at.shape, dtype=torch.bool, device=x.device))
    elif at.dtype == torch.float32:
        at = at.double()                                                         # the sum of both products may pass 2^24
    indices = at if at.dtype == torch.int32 else torch.empty(at.shape, dtype=torch.int32, device=x.device)
    offset = torch.full((4 * cells,), _OFFSET, dtype=torch.int32, device=x.device)
    offset[2 * cells:3 * cells] += 2 * _OFFSET
    hs = torch.empty(steps, batch, cells, dtype=d.recurrent.dtype, device=x.device)
    cs = torch.empty(steps, batch, cells, dtype=torch.int16, device=x.device)
    h_low, h_high = arith.limits(d.hidden.bits)
    never_cut = d.hidden_scale * h_high >= 1.0                                   # |o tanh(c')| < 1
    uncut = None if never_cut else torch.empty(steps, batch, cells, dtype=torch.bool, device=x.device)
    h, c, b = hidden.to(d.recurrent.dtype).contiguous(), cell.to(torch.int32).contiguous(), _Step(batch, cells, x)
    integer_product = d.recurrent.dtype == torch.int8
    acc = torch.empty(batch, 4 * cells, dtype=torch.int32 if integer_product else d.recurrent.dtype, device=x.device)
    shift = 2 * arith.UNIT_FRACTION - d.fraction
    for step in range(steps):
        torch._int_mm(h, d.recurrent, out=acc) if integer_product else torch.mm(h, d.recurrent, out=acc)
        if d.variant == "acc32":
            total = acc.add_(at[step]) if integer_product or at.dtype == acc.dtype else acc + at[step]
            if d.first.wide:
                b.wide.copy_(d.first.unlimited(total))
            else:
                torch.mul(total, d.first.factor, out=b.wide).add_(d.first.offset).floor_()
        else:
            if d.second.wide:
                b.wide.copy_(d.second.unlimited(acc))
            else:
                torch.mul(acc, d.second.factor, out=b.wide).add_(d.second.offset).floor_()
            torch.gt(b.wide.abs().add_(0.5), high + 0.75, out=cut.recurrent[step])   # |x + 1/2| > 32767.75: beyond either limit
            b.wide.clamp_(low, high).add_(at[step])
        index = indices[step]
        index.copy_(b.wide.clamp_(low, high)).add_(offset)
        torch.index_select(t.integers, 0, index.view(-1), out=b.gates.view(-1))
        i, f, g, o = b.gates.view(batch, 4, cells).unbind(1)
        torch.mul(f, c, out=b.left).add_(1 << (arith.UNIT_FRACTION - 1)).bitwise_right_shift_(arith.UNIT_FRACTION)
        torch.mul(i, g, out=b.right).add_(1 << (shift - 1)).bitwise_right_shift_(shift)
        c = torch.add(b.left, b.right, out=c).clamp_(low, high)
        cs[step].copy_(c)
        torch.add(c, _OFFSET, out=b.at)
        torch.index_select(t.cell, 0, b.at.view(-1), out=b.left.view(-1))
        torch.mul(o, b.left, out=b.right)                                        # Q0.30
        free = d.hidden.unlimited(b.right) if d.hidden.wide else torch.mul(b.right, d.hidden.factor, out=b.hidden).add_(0.5).floor_()
        if uncut is not None:
            torch.logical_and(free >= h_low, free <= h_high, out=uncut[step])
        h = hs[step].copy_(free.clamp_(h_low, h_high))
    return hs, cs, indices, uncut, cut


def backward(dy: Tensor, dc: Tensor | None, feedback: Tensor, cell: Tensor, cs: Tensor, indices: Tensor, uncut: Tensor | None,
             cut: Cut | None, d: Direction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients through time.

    dy [T, B, H] d loss / d hidden integer      dc [B, H] d loss / d final cell (real) or None      feedback [4H, H]: recurrent weights, real
    over hidden code      returns (d pre-activation real [T, B, 4H], d first hidden integer, d first cell real, sum of d hidden real * hidden)
    """
    steps, batch, cells = cs.shape
    t = tables(d.fraction, dy.device)
    unit = 2.0**-d.fraction
    dz = torch.empty(steps, batch, 4 * cells, dtype=torch.float32, device=dy.device)
    dc = torch.zeros(batch, cells, device=dy.device) if dc is None else dc.float().clone()
    dh = torch.zeros(batch, cells, device=dy.device)
    value, slope = (torch.empty(batch, 4 * cells, device=dy.device) for _ in range(2))
    tc, tc_slope = (torch.empty(batch, cells, device=dy.device) for _ in range(2))
    at = torch.empty(batch, cells, dtype=torch.int32, device=dy.device)
    moment = torch.zeros(batch, cells, device=dy.device)
    inverse = 1.0 / d.hidden_scale
    for step in range(steps - 1, -1, -1):
        index = indices[step].view(-1)
        torch.index_select(t.reals, 0, index, out=value.view(-1))
        torch.index_select(t.slopes, 0, index, out=slope.view(-1))
        at.copy_(cs[step]).add_(_OFFSET)
        torch.index_select(t.cell_reals, 0, at.view(-1), out=tc.view(-1))
        torch.index_select(t.cell_slopes, 0, at.view(-1), out=tc_slope.view(-1))
        i, f, g, o = value.view(batch, 4, cells).unbind(1)
        di, df, dg, do = dz[step].view(batch, 4, cells).unbind(1)
        dh.add_(dy[step]).mul_(inverse)
        if uncut is not None:
            dh.mul_(uncut[step])
        torch.mul(dh, tc, out=do)
        dh.mul_(o)
        moment.addcmul_(dh, tc)
        dc.addcmul_(dh, tc_slope)
        dc.mul_(tc_slope != 0)                                                   # a cell at the limit of int16 passes nothing on
        before = (cell if step == 0 else cs[step - 1]).float().mul_(unit)
        torch.mul(dc, g, out=di)
        torch.mul(dc, before, out=df)
        torch.mul(dc, i, out=dg)
        dz[step].mul_(slope)
        dc.mul_(f)
        torch.mm(dz[step] if cut is None else dz[step].masked_fill(cut.recurrent[step], 0.0), feedback, out=dh)
    return dz, dh, dc, moment.sum()


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, input_codes: Tensor, recurrent_codes: Tensor, bias: Tensor, input_scale: Tensor, recurrent_scale: Tensor,
                hidden: Tensor, cell: Tensor, hidden_scale: Tensor | None, d: Direction, zero_point: int) -> tuple[Tensor, Tensor]:
        hs, cs, indices, uncut, cut = forward(x, hidden, cell, d)
        ctx.save_for_backward(x, input_codes, recurrent_codes, input_scale, recurrent_scale, hidden, cell, hidden_scale, hs, cs, indices, uncut,
                              *(() if cut is None else (cut.input, cut.recurrent)))
        ctx.d, ctx.zero_point = d, zero_point
        ctx.set_materialize_grads(False)
        return hs.float(), cs[-1].float()

    @staticmethod
    def backward(ctx, dy: Tensor | None, dc: Tensor | None):
        x, input_codes, recurrent_codes, input_scale, recurrent_scale, hidden, cell, hidden_scale, hs, cs, indices, uncut, *cut = ctx.saved_tensors
        d, unit = ctx.d, 2.0**-ctx.d.fraction
        if dy is None:
            dy = torch.zeros(cs.shape, device=cs.device)
        cuts = Cut(*cut) if cut else None
        dz, dh, dc, moment = backward(dy, None if dc is None else dc / unit, recurrent_codes * recurrent_scale[:, None], cell, cs, indices, uncut,
                                      cuts, d)
        through_x = (dz if cuts is None else dz.masked_fill(cuts.input, 0.0)).flatten(0, 1)
        through_h = (dz if cuts is None else dz.masked_fill_(cuts.recurrent, 0.0)).flatten(0, 1)
        flat = x.flatten(0, 1)
        gx = (through_x @ (input_codes * input_scale[:, None])).view_as(x) if ctx.needs_input_grad[0] else None
        slope_x = through_x.t() @ (flat - ctx.zero_point if ctx.zero_point else flat)
        slope_h = through_h.t() @ torch.cat([hidden[None].to(hs.dtype), hs[:-1]]).flatten(0, 1).float()
        g_input_scale = (input_codes * slope_x).sum(1) if ctx.needs_input_grad[4] else None
        g_recurrent_scale = (recurrent_codes * slope_h).sum(1) if ctx.needs_input_grad[5] else None
        g_hidden_scale = None if hidden_scale is None else (-moment / d.hidden_scale).to(hidden_scale.dtype)
        return (gx, slope_x.mul_(input_scale[:, None]), slope_h.mul_(recurrent_scale[:, None]), through_x.sum(0), g_input_scale,
                g_recurrent_scale, dh, dc * unit, g_hidden_scale, None, None)


def lstm(x: Tensor, input_codes: Tensor, recurrent_codes: Tensor, bias: Tensor, input_scale: Tensor, recurrent_scale: Tensor, hidden: Tensor,
         cell: Tensor, d: Direction, zero_point: int, out: Format) -> tuple[Tensor, Tensor]:
    """One direction over a sequence: integers [T, B, I] -> (hidden integers [T, B, H], last cell integers [B, H]), float32.

    codes  float32 [4H, I], [4H, H]       bias  real [4H]      scales  [4H] real value of one unit of each product's accumulator
    hidden, cell  the state before, integers       d  the same integers, packed       zero_point  of x       out  format of the hidden state
    """
    return _Lstm.apply(x, input_codes, recurrent_codes, bias, input_scale, recurrent_scale, hidden, cell, out.tensor, d, zero_point)
