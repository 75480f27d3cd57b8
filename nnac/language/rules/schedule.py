"""Rules about schedules: what is to happen in training, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nnac.diagnostics import Diagnostic, Severity
from nnac.language.rules.base import Entry, Label, Resolution, Rule, by_entry, example, place, problem
from nnac.units import Moment, UnitError


class ImpossibleSchedule(Rule):
    """A schedule that cannot happen as written.

    Pruning that ends after training, a ramp that runs backwards, a hard compressor that fires before there are hard
    centroids or never at all, epochs without `steps_per_epoch`: training would go on and quietly do something else.
    Change the moments, or the `training` block.
    """

    code = "impossible-schedule"
    example = example("training { steps 6k steps }\nlayers encoder.lstm[*].** { sparsity magnitude(75%, from=1k steps, "
                      "to=8k steps) }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        assert r.sites is not None
        yield from self.training(r)
        for setting in ("weights", "regularise", "harden", "sparsity"):
            for decided, sites, value in by_entry(r, setting, r.sites.leaves):
                method = value.method if setting == "weights" and value is not None else value
                if decided is None or method is None:
                    continue
                for message, label, severity in self.of_method(method, r, sites):
                    related = self.said(r)
                    yield problem(self.code, place(r, decided), message, label, severity=severity, related=related)

    def training(self, r: Resolution) -> Iterator[Diagnostic]:
        t = r.training
        if t.warmup is not None and t.total is not None and t.warmup > t.total:
            statement, node = r.training_nodes["warmup"]
            yield problem(self.code, statement.span(node),
                          f"the warm-up of {t.warmup} steps is longer than the training of {t.total}")
        known = t.steps is not None and t.epochs is not None and t.steps_per_epoch is not None
        if known and round(t.epochs * t.steps_per_epoch) != t.steps:  # type: ignore[operator]
            statement, node = r.training_nodes["steps"]
            yield problem(self.code, statement.span(node),
                          f"{t.epochs:g} epochs of {t.steps_per_epoch} steps are not {t.steps} steps", "",
                          "say `steps` or `epochs`, not both")

    def said(self, r: Resolution) -> tuple[Label, ...]:
        for name in ("steps", "epochs"):
            if name in r.training_nodes:
                statement, node = r.training_nodes[name]
                return (Label(statement.span(node), "training is this long"),)
        return ()

    def of_method(self, method: Any, r: Resolution, sites: list[int]) -> Iterator[tuple[str, str, Severity]]:
        total = r.training.total
        moments = all_moments(method)
        for name, moment in moments.items():
            if moment.unit == "epochs" and r.training.steps_per_epoch is None:
                yield f"`{name}` counts epochs, and the `training` block does not say `steps_per_epoch`", "", "error"
                return
        at = {n: self.step(m, r) for n, m in moments.items()}
        for name, step in at.items():
            if total is not None and step is not None and step > total:
                words = "the annealing of" if name.startswith("anneal") else f"`{name}` of"
                yield f"{words} `{method.keyword}` lies after the end of training", f"step {step} of {total}", "error"
                return
        yield from self.order(method, at, r, sites)

    def step(self, moment: Moment | None, r: Resolution) -> int | None:
        """A moment in steps, as far as the training block says; without it fractions cannot be placed."""
        if moment is None or (moment.unit == "training" and r.training.total is None):
            return None
        try:
            return moment.steps(r.training.total or 0, r.training.steps_per_epoch)
        except (UnitError, OverflowError):
            return None

    def order(self, method: Any, at: dict[str, int | None], r: Resolution,
              sites: list[int]) -> Iterator[tuple[str, str, Severity]]:
        for first, last in (("from", "to"), ("from", "until"), ("ramp.start", "ramp.end")):
            a, b = at.get(first), at.get(last)
            if a is not None and b is not None and (a > b or (last == "to" and a == b and b > 0)):
                yield f"`{method.keyword}` ends before it begins", f"from step {a} to step {b}", "error"
                return
        for name in ("period", "every", "refresh"):
            if at.get(name) == 0:
                yield f"`{name}` of `{method.keyword}` is no time at all", "", "error"
                return
        if method.keyword == "every":
            yield from self.hardening(method, at, r, sites)

    def hardening(self, method: Any, at: dict[str, int | None], r: Resolution,
                  sites: list[int]) -> Iterator[tuple[str, str, Severity]]:
        start, total = at.get("from"), r.training.total
        if start is not None and total is not None and start >= total:
            yield "the hard compressor never fires", f"first at step {start}, and training has {total}", "error"
            return
        for i in sites:
            anneal = getattr(r.values["weights"][i].method, "anneal", None)
            if anneal is None:
                continue
            begin, length = self.step(anneal.from_, r), self.step(anneal.over, r)
            if start is not None and begin is not None and length is not None and start < begin + length:
                yield ("the hard compressor fires before there are hard centroids",
                       f"at step {start}; the annealing ends at step {begin + length}", "error")
                return


def all_moments(method: Any) -> dict[str, Moment]:
    """Every moment of a method, those of its annealing as their end included."""
    out = dict(method.moments)
    anneal = getattr(method, "anneal", None)
    if anneal is not None:
        if anneal.from_.unit == anneal.over.unit:
            out["anneal"] = Moment(anneal.from_.amount + anneal.over.amount, anneal.over.unit)
        else:
            out["anneal.over"], out["anneal.from"] = anneal.over, anneal.from_
    return out


def written(method: Any) -> list[Moment]:
    """The moments of a method, and of its annealing, that are not its defaults."""
    defaults = {name: default for name, (_, default) in type(method).arguments().items()}
    values = {name: getattr(method, field) for name, field in type(method)._names()}
    said = [n for n, v in values.items() if v != defaults[n]]
    out = [m for name, m in method.moments.items() if name.partition(".")[0] in said and m.amount > 0]
    anneal = values.get("anneal")
    return out + ([m for m in (anneal.over, anneal.from_) if m.amount > 0] if "anneal" in said and anneal is not None
                  else [])


class NoTrainingLength(Rule):
    """A schedule is given in steps or epochs, but nothing says how long training is.

    Without a `training` block with `steps` nobody can tell whether the schedule ends in time.  Add
    `training { steps 6k steps }`, or write the schedule in percent of the training.
    """

    code = "no-training-length"
    example = example("layers encoder.lstm[*].** { sparsity magnitude(75%, from=1k steps, to=8k steps) }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.training.total is not None:
            return
        assert r.sites is not None
        scheduled: list[tuple[Any, Entry]] = []
        for setting in ("weights", "regularise", "harden", "sparsity"):
            for decided, _, value in by_entry(r, setting, r.sites.leaves):
                method = value.method if setting == "weights" and value is not None else value
                if decided is not None and method is not None and any(m.unit != "training" for m in written(method)):
                    scheduled.append(decided)
        if scheduled:
            yield problem(self.code, r.entry_span(*scheduled[0]),
                          "nothing says how long training is, so this schedule cannot be checked",
                          "",
                          "add `training { steps 6k steps }`", severity="warning")
