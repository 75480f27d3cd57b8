"""Weights to integers in training: one method, one mask, one regulariser, one hard compressor, composed.

    codes, scale = quantiser(w)
    # codes float32 [rows, cols], exact integers;  scale float32 [rows];  w_hat = codes * scale[:, None]

The codes carry the whole gradient: backward, they stand for ``w_hat / scale``, so whoever multiplies with ``codes *
scale`` gives the weights and the learned sizes their gradient by the chain rule and treats the scale as a constant (it
has no gradient of its own). `WeightQuantiser` settles one matrix one way; `KernelQuantiser` a matrix of parts with ways
of their own (gates; the two kernels of an LSTM that share an accumulator).  Both have the same calls.  Everything that
changes is in the state_dict.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from nnac.compression._grids import SMALLEST_UNIT, Codebook, Grid, Uniform, largest, over
from nnac.compression._masks import Event
from nnac.train.clock import Clock
from nnac.train.settings import Layout, Settings
from nnac.units import UnitError

if TYPE_CHECKING:
    from nnac.plan import Plan, SitePlan, Training


def without_rate(names: list[str]) -> UnitError:
    """What to say where periods of these kernels are said in spacings of their levels, and nobody says the learning
    rate."""
    return UnitError(f"`every(spacings=…)` of `{'`, `'.join(names)}` needs the learning rate: say `learning_rate` in "
                     "the `training` block, or Compression(model, learning_rate=…)")


class _Scheduled(nn.Module):
    """What both quantisers share: the clock.  It is a buffer for the state_dict and plain numbers for speed."""

    time: Tensor

    def __init__(self, training: Training | None) -> None:
        super().__init__()
        self.rate = training.learning_rate if training else None
        self.clock = Clock(0, training.total if training else None, training.steps_per_epoch if training else None)
        self.register_buffer("time", torch.zeros(3, dtype=torch.int64))
        self._set_clock(self.clock)

    def _set_clock(self, clock: Clock) -> None:
        self.clock = clock
        self.time.copy_(torch.tensor([clock.step, -1 if clock.total is None else clock.total,
                                      -1 if clock.per_epoch is None else clock.per_epoch]))

    def set_length(self, total: int | None, per_epoch: int | None = None, rate: float | None = None) -> None:
        """The length of training, for moments given as percentages or epochs, and the learning rate; None keeps what is
        known."""
        self.rate = self.rate if rate is None else rate
        self._set_clock(evolve(self.clock, total=self.clock.total if total is None else total,
                               per_epoch=self.clock.per_epoch if per_epoch is None else per_epoch))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        step, total, per_epoch = self.time.tolist()
        self.clock = Clock(step, None if total < 0 else total, None if per_epoch < 0 else per_epoch)


WEIGHED = 4                    # steps over which the gradient of the task is looked at (our choice)
WEAK = 0.03                    # of the task's gradient: what pulls less does nothing in a training (measured)


class ScheduleWarning(UserWarning):
    """What a policy asks of training does nothing, or is undone, at the learning rate and the gradients there are."""


class WeightQuantiser(_Scheduled):
    """One matrix, one way.  See the module.

    weight  float [rows, cols], what training starts from: learned sizes and centroids are fitted to it, and fitted once
            more at the first
    forward pass, since the matrix passed there may be scaled (`acc32`).     name  for messages
    kernels  columns of each kernel in it (two that share an accumulator stand side by side); None: it is one.  Each is
             pruned by itself:
    together, the one whose input has the larger scale would keep its weights at the other's cost
    """

    mask: Tensor | None
    memory: Tensor
    inputs: Tensor
    flags: Tensor
    pulled: Tensor
    hardening: Tensor
    frozen_unit: Tensor
    frozen_codes: Tensor | None

    def __init__(self, settings: Settings, weight: Tensor, *, name: str = "weight", training: Training | None = None,
                 kernels: tuple[int, ...] | None = None) -> None:
        super().__init__(training)
        if weight.ndim != 2:
            raise ValueError(f"{name}: weights are a matrix, not {list(weight.shape)}")
        self.kernels = kernels or (weight.shape[1],)
        self.settings, self.name, self.learned = settings, name, ()
        rows, cols = weight.shape
        self.layout = Layout(rows, cols, settings.granularity, settings.group, settings.gates)
        w = weight.detach().float()
        if settings.sparsity is not None:
            self.register_buffer("mask", torch.ones(rows, cols, dtype=torch.bool, device=w.device))
            self.register_buffer("memory", torch.zeros(len(self.kernels), dtype=torch.float64))
        else:
            self.mask = None
        if settings.regularise is not None:
            # sum over the steps weighed of the task gradient's mean square, their number, the strength settled
            self.register_buffer("pulled", torch.zeros(3, dtype=torch.float64))
        if settings.harden is not None:
            self.register_buffer("hardening", torch.zeros(1, dtype=torch.float64))   # mean spacing at the first step
        self.register_buffer("inputs", torch.zeros(0, 0, device=w.device))       # see `meet`
        self.register_buffer("flags", torch.zeros(2, dtype=torch.bool))          # started, frozen
        self.started = self.frozen = False
        if settings.method is not None:
            self.learned = tuple(settings.method.learned)
            for key, value in self._fitted(w).items():
                if key in self.learned:
                    self.register_parameter(key, nn.Parameter(value.clone()))
                else:
                    self.register_buffer(key, value.clone())
            grid = self._grid(w, False)
            self.register_buffer("frozen_unit", torch.zeros(self.layout.groups, 1, device=w.device))
            self.register_buffer("frozen_codes", torch.zeros_like(grid.codes) if isinstance(grid, Codebook) else None)
        self.to(w.device)

    # ------------------------------------------------------------------------------------------------ state

    @property
    def state(self) -> dict[str, Any]:
        """What the method keeps: parameters and buffers by name."""
        own = {"mask", "memory", "inputs", "pulled", "hardening", "flags", "time", "frozen_unit", "frozen_codes"}
        return {**self._parameters, **{k: v for k, v in self._buffers.items() if k not in own}}

    @property
    def _live(self) -> Tensor | None:
        return None if self.mask is None else self.layout.grouped(self.mask)

    def _fitted(self, w: Tensor) -> dict[str, Tensor]:
        return self.settings.method.start(self.layout.grouped(w if self.mask is None else w * self.mask), self._live,
                                          self.settings.bits)

    def _grid(self, w: Tensor, training: bool) -> Grid:
        return self.settings.method.grid(self.state, self.layout.grouped(w), self._live, self.settings.bits, training)

    def _flag(self, started: bool | None = None, frozen: bool | None = None) -> None:
        self.started = self.started if started is None else started
        self.frozen = self.frozen if frozen is None else frozen
        self.flags.copy_(torch.tensor([self.started, self.frozen]))

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        if (kept := state_dict.get(f"{prefix}inputs")) is not None:              # as large as what was met
            self.inputs = torch.zeros(kept.shape, device=self.inputs.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.started, self.frozen = self.flags.tolist()

    def restart(self, w: Tensor) -> None:
        """Fit learned sizes, centroids and clips to ``w`` again, as if training started here."""
        with torch.no_grad():
            if self.settings.method is not None:
                for key, value in self._fitted(w.detach().float()).items():
                    getattr(self, key).copy_(value)
                if self.settings.round is not None and not self.settings.method.steady:
                    self._remember(self._grid(w.detach().float() if self.mask is None else w * self.mask, True))
            self._flag(started=True)

    @property
    def _holds(self) -> bool:
        """Whether the grid is the one of the start: errors were fed back for its levels, and it would follow the
        weights that were moved."""
        s = self.settings
        return self.started and s.round is not None and not s.method.steady  # type: ignore[union-attr]

    @property
    def wants_inputs(self) -> bool:
        """Whether something here asks what the matrix is multiplied with."""
        rounds = self.settings.method is not None and self.settings.round is not None
        return rounds or (self.settings.sparsity is not None
                          and self.settings.sparsity.needs_inputs)  # type: ignore[attr-defined]

    def meet(self, gram: Tensor) -> None:
        """What the matrix is multiplied with: ``E[x x^T]`` [cols, cols] of its inputs x, as calibration saw them."""
        self.inputs = gram.float()

    @torch.no_grad()
    def rounded(self, w: Tensor, unit: Tensor | None = None) -> Tensor:
        """``w`` on its levels, by the method of ``round``: what training starts from.  ``w`` itself where the policy
        says none, or nothing was met.  unit  as in `forward`"""
        how: Any = self.settings.round
        if how is None or self.settings.method is None or not self.inputs.any() or self.frozen:
            return w
        grid, _ = self._on(self.grid(w), unit)
        if isinstance(grid, Codebook):
            grid = evolve(grid, bounds=None)               # the nearest level, also where a method has its own bounds
        all_of_it = None if self.settings.granularity == "group" else grid

        def nearest(column: Tensor, number: int) -> Tensor:
            some = all_of_it or grid.at(self.layout.groups_at(number).to(w.device))
            x = column.view(some.unit.shape[0], -1)
            return (some.nearest(x) * some.unit).view(-1)

        return self._hard(how.apply(w.float(), self.inputs, nearest), unit)

    def _hard(self, w: Tensor, unit: Tensor | None = None) -> Tensor:
        """What the codes of ``w`` say at evaluation."""
        was = self.training
        self.training = False
        codes, scale = self(w, unit)
        self.training = was
        return codes * scale[:, None]

    # ------------------------------------------------------------------------------------------------ forward

    @property
    def exact(self) -> bool:
        """Whether `forward` gives integers now."""
        if self.settings.method is None:
            return False
        return not self.training or self.frozen or self.settings.method.exact_at(self.clock)

    @property
    def outermost(self) -> int | None:
        """The outermost code, where `forward` gives each row a uniform grid up to its largest magnitude and does
        nothing else: a native function knows that (`nnac.train.native_weights`).  None: it does more."""
        s = self.settings
        if s.method is None or not s.method.by_largest or s.granularity != "channel" or not 2 <= s.bits <= 8 or (
                self.mask is not None or self.frozen or not self.started or s.round is not None):
            return None
        return largest(s.bits)

    def forward(self, w: Tensor, unit: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(codes, scale) of a float weight [rows, cols].

        codes  float32 [rows, cols], exact integers whenever `exact`       scale  float32 [rows], no gradient
        unit   [rows], given by a `KernelQuantiser`, or for room in an accumulator (`nnac.train.ops._room`): express the
               codes on this unit instead of the method's own; of rows that share one, on the largest
        """
        if self.settings.method is None:
            live = w.float() if self.mask is None else w.float() * self.mask
            return (live, torch.ones(w.shape[0], device=w.device)) if unit is None else (live / unit[:, None], unit)
        if not self.started:
            self.restart(w)
        w = w.float()
        if self.mask is not None:
            w = w * self.mask
        grid, unit = self._on(self.grid(w), unit)
        x = self.layout.grouped(w)
        if self.frozen:
            from nnac.compression._grids import exact

            codes = exact(x, grid.nearest(x.detach()), grid.unit)
        else:
            codes = self.settings.method.codes(self.state, x, grid, self.settings.bits, self.clock if self.training
                                               else None)
        codes = self.layout.ungrouped(codes)
        if self.mask is not None:
            # grids without a zero would give the dead their smallest level
            codes = codes * self.mask
        return codes, unit

    def grid(self, w: Tensor) -> Grid:
        """The grid for a (masked) weight, on the method's own unit."""
        with torch.no_grad():
            if not (self.frozen or self._holds):
                return self._grid(w.detach().float(), self.training)
            if self.frozen_codes is not None:
                return Codebook(self.frozen_unit, self.frozen_codes)
            grid = self._grid(w.detach().float(), False)
            assert isinstance(grid, Uniform)
            return evolve(grid, step=self.frozen_unit, multiple=1)

    def _on(self, grid: Grid, unit: Tensor | None) -> tuple[Grid, Tensor]:
        """The grid on a unit that a whole row shares, and that unit [rows]."""
        if unit is None and self.layout.granularity != "group":
            return grid, self.layout.rows_of(grid.unit)
        if unit is None:
            unit = over(self.layout.rows_of(grid.reach), self.top).clamp_min(SMALLEST_UNIT)
        groups = self.layout.groups_of(unit)
        return grid.on(groups), self.layout.rows_of(groups)

    @property
    def top(self) -> int:
        """The largest code: of int8, or of int16 for wide weights."""
        wide = self.settings.bits > 8 or getattr(self.settings.method, "snap", "int8") == "int16"
        return largest(16 if wide else 8)

    def reach(self, w: Tensor) -> Tensor:
        """The largest real magnitude of each row's grid, [rows]."""
        if self.settings.method is None:
            return w.detach().abs().amax(1).float()
        if not self.started:
            self.restart(w)
        return self.layout.rows_of(self.grid(w if self.mask is None else w * self.mask).reach)

    # ------------------------------------------------------------------------------------------------ training

    @property
    def regularises(self) -> bool:
        """Whether `regulariser` can be other than zero."""
        return self.settings.regularise is not None and self.settings.method is not None and not self.frozen

    def regulariser(self, w: Tensor) -> Tensor:
        """The regulariser's term in the loss at its present strength: a scalar."""
        regularise: Any = self.settings.regularise if self.regularises else None
        strength = regularise.strength_at(self.clock, float(self.pulled[2])) if regularise is not None else 0.0
        if strength == 0.0:
            return w.new_zeros(())
        if not self.started:
            self.restart(w)
        w = w.float()
        grid = self.grid(w if self.mask is None else w * self.mask)
        return strength * regularise.penalty(self.layout.grouped(w), grid, self._live)

    @property
    def weighs(self) -> bool:
        """Whether the regulariser is still to be compared with the gradient of the task."""
        return self.regularises and float(self.pulled[1]) < WEIGHED

    def weigh(self, w: Tensor, slope: Tensor) -> dict[str, float]:
        """Compare the regulariser with ``slope`` [rows, cols], the gradient of the loss by ``w``; after `WEIGHED` steps
        settle how strong it is.  Returns the strength by name, once.

        ScheduleWarning: a strength was said by which nothing is pulled.
        """
        how: Any = self.settings.regularise
        if not self.weighs:
            return {}
        live = torch.ones_like(w, dtype=torch.bool) if self.mask is None else self.mask
        own = self._pulling(w)[live].double().square().mean().sqrt()
        said = 0.0 if how.strength is None else how.strength_at(self.clock)
        task = slope.double()[live] - said * self._pulling(w)[live].double()
        self.pulled[0] += task.square().mean().cpu()
        self.pulled[1] += 1
        if self.pulled[1] < WEIGHED:
            return {}
        size = float((self.pulled[0] / WEIGHED).sqrt())
        if how.strength is None:
            self.pulled[2] = how.pull * size / max(float(own), 1e-30)
            return {self.name: float(self.pulled[2])}
        self.pulled[2] = how.strength
        ratio = how.strength * float(own) / max(size, 1e-30)
        if ratio < WEAK:
            warnings.warn(f"`{self.name}`: the gradient of `{how}` is {100 * ratio:.2g} % of the task's: it pulls "
                          f"nothing; say `{how.keyword}(pull=30%)`", ScheduleWarning, stacklevel=2)
        return {}

    def _pulling(self, w: Tensor) -> Tensor:
        """The gradient of the regulariser at strength one, [rows, cols]."""
        how: Any = self.settings.regularise
        if not self.started:
            self.restart(w)
        with torch.enable_grad():
            v = w.detach().float().requires_grad_()
            grid = self.grid(v.detach() if self.mask is None else v.detach() * self.mask)
            how.penalty(self.layout.grouped(v), grid, self._live).backward()
        assert v.grad is not None
        return v.grad

    @torch.no_grad()
    def on_step(self, step: int, w: Tensor) -> bool:
        """Run the schedules after optimiser step number ``step``; True if ``w`` was changed in place (pruned,
        hard-compressed)."""
        changed = self.renew(step, w)
        if self.hardens:
            self.harden(w)
        return changed or self.hardens

    @property
    def lacks_rate(self) -> bool:
        """Whether the hard compressor's period is said in spacings of the levels, and nobody says the learning rate."""
        how: Any = self.settings.harden
        return self.settings.method is not None and how is not None and how.spacings is not None and self.rate is None

    @property
    def hardens(self) -> bool:
        """Whether the hard compressor is due now."""
        s = self.settings
        if s.method is None or s.harden is None or self.frozen:
            return False
        how: Any = s.harden
        return how.settled(float(self.hardening), self.rate or 1.0).due(self.clock)

    def _measure_spacing(self, w: Tensor) -> None:
        """How far levels are apart, for periods of the hard compressor that are said in spacings.

        UnitError: they are, and nothing says the learning rate.  ScheduleWarning: training is undone between two runs.
        """
        how: Any = self.settings.harden
        if self.rate is None:
            if self.lacks_rate:
                raise without_rate([self.name])
            return
        grid = self.grid(w)
        codes = grid.codes
        spacing = (codes[:, -1:] - codes[:, :1]) / max(1, codes.shape[1] - 1) * grid.unit
        self.hardening.fill_(float(spacing.mean()))
        if how.undoes(self.clock, float(self.hardening), self.rate):
            steps, half = self.clock.at(how.period), float(self.hardening) / 2
            warnings.warn(f"`{self.name}`: between two hard compressions the optimiser moves a weight by at most "
                          f"{steps} x {self.rate:g} = {steps * self.rate:.2g}, and half a spacing is {half:.2g}: what "
                          "training does is undone; say `every(spacings=1)`", ScheduleWarning, stacklevel=2)

    @torch.no_grad()
    def renew(self, step: int, w: Tensor) -> bool:
        """`on_step` without the hard compressor."""
        self._set_clock(evolve(self.clock, step=step))
        if self.frozen:
            return False
        changed, s = False, self.settings
        sparsity: Any = s.sparsity
        if sparsity is not None and sparsity.due(self.clock):
            assert self.mask is not None
            pieces, masks, left = [], [], 0
            for number, part in enumerate(w.detach().float().split(self.kernels, 1)):
                right = left + part.shape[1]
                gram = self.inputs[left:right, left:right] if self.inputs.any() else None
                event = Event(self.clock, self.memory[number: number + 1], s.gates, gram, f"{self.name} {number}")
                piece, mask = sparsity.prune(part, self.mask[:, left:right], event)
                pieces.append(piece)
                masks.append(mask)
                left = right
            self.mask = torch.cat(masks, 1)
            if sparsity.monotone:
                w.copy_(torch.cat(pieces, 1) * self.mask)
                changed = True
        if s.method is None:
            return changed
        if not self.started:
            self.restart(w)
        if s.harden is not None and not self.hardening.any():
            self._measure_spacing(w.detach().float() if self.mask is None else w.detach().float() * self.mask)
        x = self.layout.grouped(w.float() if self.mask is None else w.float() * self.mask)
        for key, value in s.method.renew(self.state, x, self._live, s.bits, self.clock).items():
            getattr(self, key).copy_(value)
        return changed

    @torch.no_grad()
    def harden(self, w: Tensor) -> None:
        """The hard compressor: ``w`` becomes, in place, what its codes say."""
        w.copy_(self._hard(w))

    @torch.no_grad()
    def freeze(self, w: Tensor) -> None:
        """The final hard compression: ``w`` becomes what its codes say, and grid and mask never change again."""
        grid = self.final_grid(w)
        self.harden(w)
        self.keep(grid)

    def final_grid(self, w: Tensor) -> Grid | None:
        """The grid of evaluation; None when there is none to keep (real numbers, frozen already)."""
        if self.settings.method is None or self.frozen:
            return None
        if not self.started:
            self.restart(w)
        was = self.training
        self.training = False
        grid = self.grid(w.float() if self.mask is None else w.float() * self.mask)
        self.training = was
        return grid

    def keep(self, grid: Grid | None) -> None:
        """From now on this grid, whatever the weights; hardened weights stay where they are, also those placed by
        bounds of its own."""
        if grid is not None:
            self._remember(grid)
            self._flag(frozen=True)
            self.inputs = self.inputs.new_zeros(0, 0)      # nothing asks any more

    def _remember(self, grid: Grid) -> None:
        self.frozen_unit.copy_(grid.unit if isinstance(grid, Codebook) else grid.step)
        if self.frozen_codes is not None:
            self.frozen_codes.copy_(grid.codes)

    def sparsity(self) -> float:
        """The share of dead weights."""
        return 0.0 if self.mask is None else 1.0 - float(self.mask.float().mean())

    def describe(self) -> str:
        """One line: shape, settings, where the schedule stands."""
        state = "frozen" if self.frozen else "exact" if self.exact else "soft"
        pruned = f", {self.sparsity() * 100:.1f}% zero" if self.mask is not None else ""
        return f"{self.layout.rows}x{self.layout.cols}  {self.settings}  [step {self.clock.step}: {state}{pruned}]"

    def extra_repr(self) -> str:
        return f"{self.name}, {self.describe()}"


@frozen
class Part:
    """A block of a matrix: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, w: Tensor) -> Tensor:
        return w[self.top: self.bottom, self.left: self.right]


class KernelQuantiser(_Scheduled):
    """A matrix of parts, each compressed its own way: the same calls as `WeightQuantiser`.

    Parts of the same rows share the scale of those rows, since their products meet in one accumulator: each part's
    levels become integer multiples of the common unit, which is the largest reach among them over 127 (4-bit levels of
    equal reach move by less than 1 %).
    """

    def __init__(self, parts: list[tuple[Part, WeightQuantiser]], shape: tuple[int, int], *,
                 training: Training | None = None) -> None:
        super().__init__(training)
        self.parts, self.quantisers, self.shape = [p for p, _ in parts], nn.ModuleList(q for _, q in parts), shape
        covered = torch.zeros(shape, dtype=torch.int64)
        for p in self.parts:
            p.of(covered).add_(1)
        if not (covered == 1).all():
            raise ValueError("the parts do not tile the matrix")

    @property
    def pairs(self) -> list[tuple[Part, WeightQuantiser]]:
        return list(zip(self.parts, self.quantisers, strict=True))  # type: ignore[arg-type]

    @property
    def exact(self) -> bool:
        return all(q.exact for _, q in self.pairs)

    @property
    def regularises(self) -> bool:
        return any(q.regularises for _, q in self.pairs)

    @property
    def lacks_rate(self) -> bool:
        return any(q.lacks_rate for _, q in self.pairs)

    def set_length(self, total: int | None, per_epoch: int | None = None, rate: float | None = None) -> None:
        super().set_length(total, per_epoch, rate)
        for _, q in self.pairs:
            q.set_length(total, per_epoch, rate)

    def units(self, w: Tensor, least: Tensor | None = None) -> Tensor | None:
        """The common unit of each row, [rows], at least ``least``; None when no rows are shared and there is no least,
        so that every part keeps its own."""
        if least is None and all(p.left == 0 and p.right == self.shape[1] for p in self.parts):
            return None
        unit = torch.zeros(self.shape[0], device=w.device)
        for p, q in self.pairs:
            unit[p.top: p.bottom] = torch.maximum(unit[p.top: p.bottom], q.reach(p.of(w)) / q.top)
        if least is not None:
            unit = unit.maximum(least)
        # a scale that one part's rows share is shared by all parts of those rows
        for p, q in self.pairs:
            unit[p.top: p.bottom] = q.layout.rows_of(q.layout.groups_of(unit[p.top: p.bottom]))
        for p, q in self.pairs:
            unit[p.top: p.bottom] = q.layout.rows_of(q.layout.groups_of(unit[p.top: p.bottom]))
        return unit.clamp_min(SMALLEST_UNIT)

    def forward(self, w: Tensor, unit: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(codes, scale) as `WeightQuantiser.forward`."""
        unit = self.units(w.detach(), unit)
        pieces = [(p, *q(p.of(w), None if unit is None else unit[p.top: p.bottom])) for p, q in self.pairs]
        scale = torch.cat([s for p, _, s in sorted(pieces, key=lambda t: t[0].top) if p.left == 0])
        bands: dict[int, list[tuple[int, Tensor]]] = {}
        for p, codes, _ in pieces:
            bands.setdefault(p.top, []).append((p.left, codes))
        return torch.cat([torch.cat([c for _, c in sorted(band, key=lambda t: t[0])], 1)
                          for _, band in sorted(bands.items())]), scale

    @property
    def weighs(self) -> bool:
        return any(q.weighs for _, q in self.pairs)

    def weigh(self, w: Tensor, slope: Tensor) -> dict[str, float]:
        """As `WeightQuantiser.weigh`, part by part."""
        found: dict[str, float] = {}
        for p, q in self.pairs:
            found |= q.weigh(p.of(w), p.of(slope))
        return found

    def regulariser(self, w: Tensor) -> Tensor:
        """The sum of the parts' terms."""
        return torch.stack([q.regulariser(p.of(w)) for p, q in self.pairs]).sum()

    @torch.no_grad()
    def on_step(self, step: int, w: Tensor) -> bool:
        """As `WeightQuantiser.on_step`; parts harden on the common unit."""
        self._set_clock(evolve(self.clock, step=step))
        changed = [q.renew(step, p.of(w)) for p, q in self.pairs]
        if any(q.hardens for _, q in self.pairs):
            hard = self._hardened(w)
            for p, q in self.pairs:
                if q.hardens:
                    p.of(w).copy_(p.of(hard))
        return any(changed) or any(q.hardens for _, q in self.pairs)

    def _hardened(self, w: Tensor) -> Tensor:
        was = self.training
        self.eval()
        codes, scale = self(w)
        self.train(was)
        return codes * scale[:, None]

    @torch.no_grad()
    def freeze(self, w: Tensor) -> None:
        """As `WeightQuantiser.freeze`, on the common unit."""
        grids = [q.final_grid(p.of(w)) for p, q in self.pairs]
        w.copy_(self._hardened(w))
        for (_, q), grid in zip(self.pairs, grids, strict=True):
            q.keep(grid)

    def restart(self, w: Tensor) -> None:
        for p, q in self.pairs:
            q.restart(p.of(w))

    @property
    def wants_inputs(self) -> bool:
        return any(q.wants_inputs for _, q in self.pairs)

    def meet(self, gram: Tensor) -> None:
        """As `WeightQuantiser.meet`; each part meets the inputs of its columns."""
        for p, q in self.pairs:
            q.meet(gram[p.left: p.right, p.left: p.right])

    @torch.no_grad()
    def rounded(self, w: Tensor) -> Tensor:
        """As `WeightQuantiser.rounded`, each part by itself on the common unit."""
        unit, out = self.units(w), w.clone()
        for p, q in self.pairs:
            p.of(out).copy_(q.rounded(p.of(w), None if unit is None else unit[p.top: p.bottom]))
        return out

    def sparsity(self) -> float:
        """The share of dead weights."""
        return sum(q.sparsity() * q.layout.rows * q.layout.cols
                   for _, q in self.pairs) / (self.shape[0] * self.shape[1])

    def describe(self) -> str:
        return " | ".join(f"[{p.top}:{p.bottom}, {p.left}:{p.right}] {q.describe()}" for p, q in self.pairs)


def quantiser_for(plan: Plan, kernel: str, weight: Tensor) -> WeightQuantiser | KernelQuantiser:
    """The quantiser of a kernel as a plan settles it.

    kernel  its path; for two kernels that share an accumulator, that of the left one (``….input``): ``weight`` is then
            [rows, both]
    Gates that are settled unlike their kernel get quantisers of their own, and so do two kernels that differ.
    """
    kernels = plan.graph.kernels
    first = kernels[kernel]
    names = [kernel]
    if weight.shape[1] > first.cols:
        names.append(f"{kernel.rpartition('.')[0]}.recurrent")
    if weight.shape != (first.rows, sum(kernels[n].cols for n in names)):
        shape = f"{first.rows} x {sum(kernels[n].cols for n in names)}"
        raise ValueError(f"{kernel}: the weight is {list(weight.shape)}, the model says {shape}")
    plain = all(plan.uniform(n) for n in names) and len({_key(plan[n]) for n in names}) == 1
    gates = len(first.gates) or 1
    if plain:
        return WeightQuantiser(Settings.of_site(plan[kernel], gates), weight, name=kernel, training=plan.training,
                               kernels=tuple(kernels[n].cols for n in names))
    split = not all(plan.uniform(n) for n in names)
    parts, left = [], 0
    for n in names:
        right = left + kernels[n].cols
        blocks = [(s, i * first.gate_rows, (i + 1) * first.gate_rows, 1)
                  for i, s in enumerate(plan.gates(n))] if split else [
            (plan[n], 0, first.rows, gates)]
        for site, top, bottom, inner in blocks:
            part = Part(top, bottom, left, right)
            parts.append((part, WeightQuantiser(Settings.of_site(site, inner), part.of(weight), name=site.path,
                                                training=plan.training)))
        left = right
    return KernelQuantiser(parts, (first.rows, left), training=plan.training)


def _key(site: SitePlan) -> Any:
    return site.weights, site.round, site.regularise, site.harden, site.sparsity
