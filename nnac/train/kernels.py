"""The LSTM over a sequence, in exact integers, with a backward pass written by hand.

In:  integers [T, B, I] and the constants that `nnac.bind` makes.
Out: the hidden integers [T, B, R], as `ops.lstm` gives them, bit for bit.
What makes it fast: weights are packed once a sequence; the input product and every weight gradient are one large
product outside the time loop; int8 products run on the processor's int8 instructions, where it has them; a table is
one gather of 65,536 entries.

Backward: slopes of the smooth sigmoid and tanh at the quantised inputs; none where a pre-activation or a cell stands
at the limit of int16, nor where the hidden state was cut; rounding passes the gradient on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith
from nnac.train import native_lstm
from nnac.train.format import Format
from nnac.train.integers import EXACT_FLOAT64, Rescale, int8_product, plain, product
from nnac.train.lstm_parts import Direction, Trace, there

_OFFSET = 32768


@frozen(eq=False)
class Tables:
    """Sigmoid and tanh as one gather: index ``pre + 32768``, plus 65536 for tanh.  Integers, their reals, and the
    slopes.
    """

    integers: Tensor        # int32 [131072], Q0.15
    reals: Tensor           # float32, the same / 32768
    slopes: Tensor          # float32: y (1 - y) or 1 - y^2 of these reals, zero at both limits of int16
    cell: Tensor            # int32 [65536]: tanh of the cell
    cell_reals: Tensor
    cell_slopes: Tensor     # zero at both limits


@cache
def tables(fraction: int, device: torch.device) -> Tables:
    """For a cell with ``fraction`` fraction bits."""
    sigmoid, tanh, cell = (torch.as_tensor(t.full().astype("int32")) for t in
                           (arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(fraction)))
    s, t, c = (v.double() / (1 << arith.UNIT_FRACTION) for v in (sigmoid, tanh, cell))
    slopes = [s * (1 - s), 1 - t * t, 1 - c * c]
    for slope in slopes:
        slope[0] = slope[-1] = 0
    made = (
        torch.cat([sigmoid, tanh]),
        torch.cat([s, t]).float(),
        torch.cat(slopes[:2]).float(),
        cell,
        c.float(),
        slopes[2].float(),
    )
    return Tables(*(v.to(device) for v in made))


def _hidden_exact(rescale: Rescale) -> bool:
    """Whether o tanh(c') times the multiplier is exact in float64: the multiplier's odd part counts (127 for a clip
    of one).
    """
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
        self.wide, self.other = (make(4 * cells, torch.float64) for _ in range(2))
        self.gates, self.index = (make(4 * cells, torch.int32) for _ in range(2))
        self.left, self.right, self.at = (make(cells, torch.int32) for _ in range(3))
        self.hidden = make(cells, torch.float64)


def _unlimited(acc: Tensor, rescale: Rescale, out: Tensor) -> Tensor:
    """`Rescale.unlimited` into ``out`` (float64)."""
    if rescale.wide:
        return out.copy_(rescale.unlimited(acc))
    return torch.mul(acc, rescale.factor, out=out).add_(rescale.offset).floor_()


def _limited(acc: Tensor, rescale: Rescale, out: Tensor, cut: Tensor) -> Tensor:
    """The same, saturated to 16 bits; ``cut`` is set where that changed something."""
    _unlimited(acc, rescale, out)
    torch.gt((out + 0.5).abs_(), 32767.75, out=cut)  # |x + 1/2| > 32767.75: beyond either limit
    return out.clamp_(*arith.limits(16))


def forward(x: Tensor, hidden: Tensor, cell: Tensor, d: Direction) -> Trace:
    """x [T, B, I], hidden [B, R], cell [B, H] integers, any carrier."""
    at = product(x, d.input)                                                     # int32 | float32 | float64
    trace = Trace.empty(at, cell.shape[1], d)
    loop = native_lstm.forward if d.native else _eager_forward
    if d.native:
        at = at.to(torch.int32)
    if d.project is None:
        loop(at, hidden, cell, d, trace)
        return trace
    projected, uncut = there(trace.projected), there(trace.projected_uncut)
    for t in range(len(at)):
        one = trace.step(t)
        loop(at[t: t + 1], hidden, cell, d, one)
        cell = one.cells[0]
        hidden, inside = d.project.rescale(product(one.cell_outputs[0], d.project.matrix))
        projected[t] = hidden
        uncut[t] = True if inside is None else inside
    return trace


def _eager_forward(at: Tensor, hidden: Tensor, cell: Tensor, d: Direction, trace: Trace) -> None:
    """The time loop in PyTorch: fills ``trace`` from the input product ``at`` [T, B, 4H] and the state before."""
    (steps, batch, _), cells, device = at.shape, cell.shape[1], at.device
    t = tables(d.fraction, device)
    low, high = arith.limits(16)
    h_low, h_high = arith.limits(d.hidden.bits)
    matrix = d.recurrent
    assert isinstance(matrix, Tensor), "packed for PyTorch"
    separate = d.variant == "sum16"
    if not separate and at.dtype == torch.float32:
        at = at.double()  # the sum of both products may pass 2^24
    offset = torch.full((4 * cells,), _OFFSET, dtype=torch.int32, device=device)
    offset[2 * cells:3 * cells] += 2 * _OFFSET
    h, c, b = plain(hidden.to(matrix.dtype)), cell.to(torch.int32).contiguous(), _Step(batch, cells, at)
    integer_product = matrix.dtype == torch.int8
    acc = torch.empty(batch, 4 * cells, dtype=torch.int32 if integer_product else matrix.dtype, device=device)
    shift = 2 * arith.UNIT_FRACTION - d.fraction
    for step in range(steps):
        int8_product(h, matrix, acc) if integer_product else torch.mm(h, matrix, out=acc)
        if separate:
            first = _limited(at[step], d.first, b.other, there(trace.cut_input)[step])
            _limited(acc, there(d.second), b.wide, there(trace.cut_recurrent)[step]).add_(first)
        else:
            _unlimited(acc.add_(at[step]) if at.dtype == acc.dtype else acc + at[step], d.first, b.wide)
        trace.pre[step].copy_(b.wide.clamp_(low, high))
        b.index.copy_(b.wide).add_(offset)
        torch.index_select(t.integers, 0, b.index.view(-1), out=b.gates.view(-1))
        i, f, g, o = b.gates.view(batch, 4, cells).unbind(1)
        torch.mul(f, c, out=b.left).add_(1 << (arith.UNIT_FRACTION - 1)).bitwise_right_shift_(arith.UNIT_FRACTION)
        torch.mul(i, g, out=b.right).add_(1 << (shift - 1)).bitwise_right_shift_(shift)
        c = torch.add(b.left, b.right, out=c).clamp_(low, high)
        trace.cells[step].copy_(c)
        torch.add(c, _OFFSET, out=b.at)
        torch.index_select(t.cell, 0, b.at.view(-1), out=b.left.view(-1))
        torch.mul(o, b.left, out=b.right)  # Q0.30
        free = _unlimited(b.right, d.hidden, b.hidden)
        if trace.uncut is not None:
            torch.logical_and(free >= h_low, free <= h_high, out=trace.uncut[step])
        h = plain(trace.cell_outputs[step].copy_(free.clamp_(h_low, h_high)))


@frozen(eq=False)
class Gradients:
    """d loss / d: pre (real pre-activations [T, B, 4H]), hidden (first hidden integers), cell (first cell, real),
    projected (real projections [T, B, R]) or None, clip (of the hidden state) or None.
    """

    pre: Tensor
    hidden: Tensor
    cell: Tensor
    projected: Tensor | None
    clip: Tensor | None


@frozen(eq=False)
class LearnedClip:
    """Gradient of a hidden state's symmetric clip: ``gradients(d loss / d real, unrounded codes)``, and the hidden
    format.
    """

    form: Format

    def add(self, total: Tensor | None, g: Tensor, z: Tensor) -> Tensor:
        """``total`` and one step's share: g [B, R] d loss / d hidden integer (of all that reads it), z unrounded
        codes.
        """
        share = there(self.form.learner).gradients(g / self.form.scale, z, self.form)[0]
        return share if total is None else total + share


def backward(
    dy: Tensor,
    dc: Tensor | None,
    feedback: Tensor,
    project: Tensor | None,
    cell: Tensor,
    trace: Trace,
    d: Direction,
    clip: LearnedClip | None = None,
) -> Gradients:
    """Through time.

    dy [T, B, R]        d loss / d hidden integer          dc [B, H]  d loss / d final cell (real) or None
    feedback [4H, R]    recurrent weights, real over hidden code
    project [R, H]      real over cell output code, or None          clip  of the hidden state, if it is learned
    """
    steps, batch, cells = trace.cells.shape
    make = lambda *shape: torch.empty(*shape, device=dy.device)  # noqa: E731
    dz = make(steps, batch, 4 * cells)
    dc = torch.zeros(batch, cells, device=dy.device) if dc is None else dc.float().clone()
    dh = torch.zeros(batch, feedback.shape[1], device=dy.device)
    projected = None if project is None else make(steps, batch, feedback.shape[1])
    to_cells, later = (
        (dy, dh) if project is None else (make(steps, batch, cells), torch.zeros(batch, cells, device=dy.device))
    )
    step_of = native_lstm.Backward if d.native else _EagerBackward
    one = step_of(to_cells, later, dc, dz, cell, trace, d)
    total: Tensor | None = None
    for step in range(steps - 1, -1, -1):
        if clip is not None:
            total = clip.add(total, dh + dy[step], _unrounded(trace, step, project, d))
        if project is not None:
            through = torch.add(dh, dy[step], out=there(projected)[step])
            through.mul_(there(trace.projected_uncut)[step]).mul_(1.0 / there(d.project).hidden_scale)
            torch.mm(there(projected)[step], project, out=to_cells[step])
            later.zero_()
        one(step)
        through = dz[step] if trace.cut_recurrent is None else dz[step].masked_fill(trace.cut_recurrent[step], 0.0)
        torch.mm(through, feedback, out=dh)
    return Gradients(dz, dh, dc, projected, total)


def _unrounded(trace: Trace, step: int, project: Tensor | None, d: Direction) -> Tensor:
    """The hidden state of a step over its scale, before rounding and saturation, [B, R]."""
    if project is not None:
        return (trace.cell_outputs[step].float() @ project.t()) / there(d.project).hidden_scale
    t = tables(d.fraction, trace.pre.device)
    cells = trace.cells.shape[2]
    o = t.reals[trace.pre[step][:, 3 * cells:].long() + _OFFSET]
    return o * t.cell_reals[trace.cells[step].long() + _OFFSET] / d.hidden_scale


class _EagerBackward:
    """The elementwise half of a backward step in PyTorch: reads dy[step] and dh, replaces dc, fills dz[step]."""

    def __init__(
        self, dy: Tensor, dh: Tensor, dc: Tensor, dz: Tensor, cell: Tensor, trace: Trace, d: Direction
    ) -> None:
        batch, cells = dc.shape
        make = lambda width, of=torch.float32: torch.empty(batch, width, dtype=of, device=dy.device)  # noqa: E731
        self.dy, self.dh, self.dc, self.dz, self.cell, self.trace, self.d = dy, dh, dc, dz, cell, trace, d
        self.t = tables(d.fraction, dy.device)
        self.value, self.slope, self.index = make(4 * cells), make(4 * cells), make(4 * cells, torch.int32)
        self.tanh, self.tanh_slope, self.at = make(cells), make(cells), make(cells, torch.int32)
        self.offset = torch.full((4 * cells,), _OFFSET, dtype=torch.int32, device=dy.device)
        self.offset[2 * cells:3 * cells] += 2 * _OFFSET

    def __call__(self, step: int) -> None:
        t, dh, dc, trace, cells = self.t, self.dh, self.dc, self.trace, self.dc.shape[1]
        self.index.copy_(trace.pre[step]).add_(self.offset)
        torch.index_select(t.reals, 0, self.index.view(-1), out=self.value.view(-1))
        torch.index_select(t.slopes, 0, self.index.view(-1), out=self.slope.view(-1))
        self.at.copy_(trace.cells[step]).add_(_OFFSET)
        torch.index_select(t.cell_reals, 0, self.at.view(-1), out=self.tanh.view(-1))
        torch.index_select(t.cell_slopes, 0, self.at.view(-1), out=self.tanh_slope.view(-1))
        i, f, g, o = self.value.view(-1, 4, cells).unbind(1)
        di, df, dg, do = self.dz[step].view(-1, 4, cells).unbind(1)
        dh.add_(self.dy[step]).mul_(1.0 / self.d.hidden_scale)
        if trace.uncut is not None:
            dh.mul_(trace.uncut[step])
        torch.mul(dh, self.tanh, out=do)
        dc.add_(dh.mul_(o).mul_(self.tanh_slope))
        dc.mul_(self.tanh_slope.sign_())  # a cell at the limit of int16 passes nothing on
        before = (self.cell if step == 0 else trace.cells[step - 1]).float().mul_(2.0**-self.d.fraction)
        torch.mul(dc, g, out=di)
        torch.mul(dc, before, out=df)
        torch.mul(dc, i, out=dg)
        self.dz[step].mul_(self.slope)
        dc.mul_(f)


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        input_codes: Tensor,
        recurrent_codes: Tensor,
        bias: Tensor,
        input_scale: Tensor,
        recurrent_scale: Tensor,
        hidden: Tensor,
        cell: Tensor,
        project_codes: Tensor | None,
        project_scale: Tensor | None,
        high: Tensor | None,
        d: Direction,
        zero_point: int,
        form: Format,
    ) -> tuple[Tensor, Tensor]:
        t = forward(x, hidden, cell, d)
        ctx.save_for_backward(
            x,
            input_codes,
            recurrent_codes,
            input_scale,
            recurrent_scale,
            hidden,
            cell,
            project_codes,
            project_scale,
            t.cell_outputs,
            t.cells,
            t.pre,
            t.uncut,
            t.cut_input,
            t.cut_recurrent,
            t.projected,
            t.projected_uncut,
        )
        ctx.d, ctx.zero_point, ctx.clip = d, zero_point, LearnedClip(form) if high is not None else None
        ctx.set_materialize_grads(False)
        return t.hidden.float() if d.project is None else there(t.projected).clone(), t.cells[-1].float()

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dc: Tensor | None) -> tuple[Tensor | None, ...]:
        (
            x,
            input_codes,
            recurrent_codes,
            input_scale,
            recurrent_scale,
            hidden,
            cell,
            project_codes,
            project_scale,
            *trace,
        ) = ctx.saved_tensors
        d, unit, t = ctx.d, 2.0**-ctx.d.fraction, Trace(*trace)
        dy = torch.zeros(t.hidden.shape, device=cell.device) if dy is None else dy.contiguous()
        project = None if project_codes is None else project_codes * project_scale[:, None]
        grads = backward(
            dy,
            None if dc is None else dc / unit,
            recurrent_codes * recurrent_scale[:, None],
            project,
            cell,
            t,
            d,
            ctx.clip,
        )
        through_x = (grads.pre if t.cut_input is None else grads.pre.masked_fill(t.cut_input, 0.0)).flatten(0, 1)
        through_h = grads.pre if t.cut_recurrent is None else grads.pre.masked_fill_(t.cut_recurrent, 0.0)
        through_h = through_h.flatten(0, 1)
        flat = x.flatten(0, 1)
        gx = (through_x @ (input_codes * input_scale[:, None])).view_as(x) if ctx.needs_input_grad[0] else None
        slope_x = through_x.t() @ (flat - ctx.zero_point if ctx.zero_point else flat)
        slope_h = through_h.t() @ torch.cat([hidden[None].to(t.hidden.dtype), t.hidden[:-1]]).flatten(0, 1).float()
        g_project = None
        if project_codes is not None:
            g_project = there(grads.projected).flatten(0, 1).t() @ t.cell_outputs.flatten(0, 1).float()
            g_project.mul_(project_scale[:, None])
        return (
            gx,
            slope_x.mul_(input_scale[:, None]),
            slope_h.mul_(recurrent_scale[:, None]),
            through_x.sum(0),
            None,
            None,
            grads.hidden,
            grads.cell * unit,
            g_project,
            None,
            grads.clip,
            None,
            None,
            None,
        )


def lstm(
    x: Tensor,
    input_codes: Tensor,
    recurrent_codes: Tensor,
    bias: Tensor,
    input_scale: Tensor,
    recurrent_scale: Tensor,
    hidden: Tensor,
    cell: Tensor,
    d: Direction,
    zero_point: int,
    out: Format,
    project_codes: Tensor | None = None,
    project_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One direction over a sequence: integers [T, B, I] -> (hidden integers [T, B, R], last cell integers [B, H]),
    float32.

    codes  float32 [4H, I], [4H, R], [R, H]      bias  real [4H]
    scales  [4H], [R] real value of one unit of each product's accumulator
    hidden, cell  the state before, integers       d  the same integers, packed
    zero_point  of x       out  format of the hidden state
    """
    high = None if out.learner is None else out.learner.high
    return _Lstm.apply(
        x,
        input_codes,
        recurrent_codes,
        bias,
        input_scale,
        recurrent_scale,
        hidden,
        cell,
        project_codes,
        project_scale,
        high,
        d,
        zero_point,
        out,
    )
