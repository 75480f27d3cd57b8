"""Rules about budgets, and about policies that are not complete."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from nnac.diagnostics import Diagnostic, Span
from nnac.language.blocks import HEARD
from nnac.language.planning import plan_of
from nnac.language.rules.base import Label, Resolution, Rule, example, problem
from nnac.units import BYTES, TIME, Quantity, show

if TYPE_CHECKING:
    from nnac.language.estimate import Estimate


def estimated(r: Resolution) -> Estimate | None:
    """The estimate of a policy, made once; None while model, target or values are missing."""
    if r.model is None or r.target is None or r.sites is None:
        return None
    if r.estimate is None:
        from nnac.language.estimate import whole  # milliseconds that a policy without budgets does not need

        r.estimate = whole(plan_of(r), r.model)
    return r.estimate


def shown(quantity: str, value: float) -> str:
    """An amount of a budget's quantity, as people write it."""
    if quantity in ("weights", "sram"):
        return show(Quantity(Fraction(value), BYTES))
    if quantity == "latency":
        return show(Quantity(Fraction(value), TIME))
    if quantity == "rtf":
        return f"{value:.4f} of real time"
    return f"{value:,.0f} cycles" if quantity == "cycles" else f"{value:.2f} bits"


SPOKEN = {"weights": "the weights take", "sram": "the SRAM in use is", "latency": "computing a step takes",
          "cycles": "computing a step takes",
          "bits_per_weight": "a weight takes", "rtf": "a recognition takes"}


class BudgetExceeded(Rule):
    """A budget that the policy will not meet, before anything is trained.

    An error where no weights and no schedule could meet it: the compiler would refuse every program.  A warning where
    the program will probably not meet it, by what is expected of trained weights (bytes as encoded, cycles of the
    machine's units; within a few per cent for the shipped policies).  The compiler checks the same budgets with exact
    figures.  The largest contributors are named: that is where fewer bits, more zeros or pinning pay.  Compress those
    layers further, or raise the budget.
    """

    code = "budget-exceeded"
    example = example("layers ** { weights int8 }\nlayers joint.activation { place cpu }\nbudget { weights <= 1 MiB; "
                      "latency <= 10 us }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        cost = estimated(r) if r.budgets else None
        for budget, statement, bound in r.budgets if cost is not None else ():
            assert cost is not None
            if budget.quantity in HEARD:                    # no policy says what people will say to it
                continue
            least, value = cost.least(budget.quantity), cost.quantity(budget.quantity)
            # how large a language model is, its own policy says
            if budget.quantity == "rtf" and cost.unknown:
                yield problem(self.code, statement.span(bound), "`rtf` is judged without the language models that "
                              "fusion asks: their size is not this policy's",
                              f"about {shown('rtf', value)} without them",
                              "`nnac compile --lm` counts them, and checks this budget again", severity="note")
            if value <= budget.limit and least <= budget.limit:
                continue
            most = ", ".join(f"{path} {shown(budget.quantity, v)}" for path, v in cost.contributors(budget.quantity))
            impossible = least > budget.limit
            how = (f"at least {shown(budget.quantity, least)}" if impossible
                   else f"about {shown(budget.quantity, value)}")
            label = "whatever the weights" if impossible else "expected; the compiler decides"
            yield problem(self.code, statement.span(bound), f"{SPOKEN[budget.quantity]} {how}, over the budget of "
                          f"{shown(budget.quantity, budget.limit)}", label, f"the largest: {most}", severity="error"
                          if impossible else "warning")


class FramesWait(Rule):
    """A latency budget beside `frames`: the wait for the frames that are computed together is not in it.

    `latency` is time of computing: what one encoder step costs (a call over several steps counts in equal parts) with
    the prediction and joint steps that follow it.  With `frames 4` the first of four steps also waits until the other
    three have been spoken, and for the whole call: often far more than any computing.  Whoever speaks waits for both.
    A warning where the wait alone is longer than the budget.
    """

    code = "frames-wait"
    example = example("layers ** { frames 4 }\nbudget { latency <= 10 ms }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        cost = estimated(r) if any(b.quantity == "latency" for b, _, _ in r.budgets) else None
        for budget, statement, bound in r.budgets if cost is not None and cost.wait_seconds else ():
            assert cost is not None and r.sites is not None
            if budget.quantity != "latency":
                continue
            frames = cost.plan.frames("encoder")
            winners = [w for w in r.winners["frames"].values() if w[1].value == frames]
            related = (Label(r.entry_span(r.rules[winners[0][0]], winners[0][1]), "computed together"),
                       ) if winners else ()
            yield problem(self.code, statement.span(bound),
                          f"`latency` is computing only: with `frames {frames}` the first of {frames} steps waits "
                          f"{shown('latency', cost.wait_seconds)} for the others",
                          f"computing takes about {shown('latency', cost.seconds)} a step, "
                          f"{shown('latency', cost.call_seconds)} a call",
                          "`frames 1` waits for nothing and reads more weights a step",
                          severity="warning" if cost.wait_seconds > budget.limit else "note", related=related)


class IncompletePolicy(Rule):
    """A policy without a model or a target, and not extended by another.

    Layers and widths cannot be checked without them.  Add `model` and `target`, or extend the policy from one that has
    them.
    """

    code = "incomplete-policy"
    example = 'policy example {\n  layers ** { weights int8 }\n}\n'

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        lacking = [w for w, there in (("model", r.model_statement), ("target", r.target_statement)) if there is None]
        extended = any(d.node.extends is not None and d.node.extends.text == r.name for d in r.scope.policies.values())
        if lacking and not extended and not r.errors and not r.scope.problems:
            name = r.policy.name
            yield problem(self.code, Span(r.declared.file.source, name.start, name.end),
                          f"policy `{r.name}` names no {' and no '.join(lacking)}",
                          "its layers cannot be checked" if "model" in lacking else "",
                          'for example `model rnnt(size="small")`, `target edge`', severity="note")
