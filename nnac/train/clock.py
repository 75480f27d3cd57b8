"""The time of a training: what schedules read."""

from __future__ import annotations

from attrs import frozen

from nnac.units import Moment, Span, UnitError


@frozen
class Clock:
    """A moment of a training: ``step`` optimiser steps done, of ``total``, ``per_epoch`` of them an epoch (None: not
    known)."""

    step: int = 0
    total: int | None = None
    per_epoch: int | None = None

    def at(self, moment: Moment) -> int:
        """A moment in steps.  UnitError when it needs a length that is not known."""
        if moment.unit == "training" and self.total is None:
            raise UnitError(f"`{moment}` of training needs its length: say `steps` in the `training` block, or "
                            f"Compression(model, steps=…)")
        return moment.steps(self.total or 0, self.per_epoch)

    def progress(self, start: Moment, over: Moment) -> float:
        """How much of a change that starts at ``start`` and takes ``over`` is done: 0 … 1."""
        length = self.at(over)
        done = self.step - self.at(start)
        return min(1.0, max(0.0, done / length)) if length > 0 else float(done >= 0)

    def ramp(self, span: Span) -> float:
        """0 before a span, 1 after it, linear inside."""
        first, last = self.at(span.start), self.at(span.end)
        return min(1.0, max(0.0, (self.step - first) / (last - first))) if last > first else float(self.step >= first)

    def every(self, period: Moment, start: Moment | None = None, until: Moment | None = None) -> bool:
        """Whether something that happens every ``period`` from ``start`` happens now.  Never at step 0: nothing is
        trained yet."""
        first = self.at(start) if start is not None else 0
        if self.step < max(1, first) or (until is not None and self.step > self.at(until)):
            return False
        return (self.step - first) % max(1, self.at(period)) == 0
