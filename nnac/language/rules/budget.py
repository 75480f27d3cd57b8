"""Rules about budgets, and about policies that are not complete."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from nnac.diagnostics import Diagnostic, Span
from nnac.language.estimate import Estimate, estimate
from nnac.language.planning import plan_of
from nnac.language.rules.base import Resolution, Rule, example, problem
from nnac.units import BYTES, TIME, Quantity, show


def estimated(r: Resolution) -> Estimate | None:
    """The estimate of a policy, made once; None while model, target or values are missing."""
    if r.model is None or r.target is None or r.sites is None:
        return None
    if r.estimate is None:
        r.estimate = estimate(plan_of(r), r.model)
    return r.estimate


def shown(quantity: str, value: float) -> str:
    """An amount of a budget's quantity, as people write it."""
    if quantity in ("weights", "sram"):
        return show(Quantity(Fraction(value), BYTES))
    if quantity == "latency":
        return show(Quantity(Fraction(value), TIME))
    return f"{value:,.0f} cycles" if quantity == "cycles" else f"{value:.2f} bits"


SPOKEN = {"weights": "the weights take", "sram": "the SRAM in use is", "latency": "a step takes", "cycles": "a step takes",
          "bits_per_weight": "a weight takes"}


class BudgetExceeded(Rule):
    """A budget that the policy will not meet, by an estimate from shapes alone.

    The largest contributors are named: that is where fewer bits, more zeros or pinning pay.  The compiler checks the same budgets with
    exact figures.  Compress those layers further, or raise the budget.
    """

    code = "budget-exceeded"
    example = example("layers ** { weights int8 }\nbudget { weights <= 1 MiB }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        cost = estimated(r) if r.budgets else None
        for budget, statement, bound in r.budgets if cost is not None else ():
            assert cost is not None
            value = cost.quantity(budget.quantity)
            if value <= budget.limit:
                continue
            most = ", ".join(f"{path} {shown(budget.quantity, v)}" for path, v in cost.contributors(budget.quantity))
            yield problem(self.code, statement.span(bound), f"{SPOKEN[budget.quantity]} about {shown(budget.quantity, value)}, over the "
                          f"budget of {shown(budget.quantity, budget.limit)}", "estimated from shapes", f"the largest: {most}")


class IncompletePolicy(Rule):
    """A policy without a model or a target, and not extended by another.

    Layers and widths cannot be checked without them.  Add `model` and `target`, or extend the policy from one that has them.
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
