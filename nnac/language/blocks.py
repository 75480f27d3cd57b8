"""The blocks of a policy that speak of no layer: `training { … }` and `budget { … }`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any

from nnac.diagnostics import did_you_mean, nearest
from nnac.language import syntax as s
from nnac.language.resolution import Reporter, Resolution, Statement, reporter
from nnac.language.values import UNKNOWN, describe, evaluate
from nnac.plan import Budget, Training
from nnac.units import BYTES, CYCLES, EPOCHS, NUMBER, STEPS, TIME, Quantity, dimension_name

HEARD = {f"{name}(p{p})": TIME for name in ("upl", "engine") for p in (50, 90)}      # decided by `nnac latency`
BUDGETS = {"weights": BYTES, "sram": BYTES, "latency": TIME, "cycles": CYCLES, "bits_per_weight": NUMBER,
           "rtf": NUMBER} | HEARD
BUDGET_DOCS = {
    "weights": "bytes of all weights as encoded, codebooks included", "sram": "bytes of on-chip memory in use at once",
    "latency": "computing one encoder step with the prediction and joint steps that follow it; waiting for `frames` is "
               "not in it",
    "cycles": "the same, in cycles",
    "bits_per_weight": "bits of the stored weights over the number of weights",
    "rtf": "the machine's time over the audio's, with what the policy's search asks for (`decode`; else greedy)",
} | {q: f"{'from the last word' if q.startswith('upl') else 'from the endpoint'} to the text, "
     f"{'the median' if q.endswith('(p50)') else 'nine utterances of ten'}: `nnac latency` decides" for q in HEARD}
TRAINING = {"steps": STEPS, "epochs": EPOCHS, "steps_per_epoch": STEPS, "batch": NUMBER, "learning_rate": NUMBER,
            "warmup": STEPS,
            "seed": NUMBER}


def _known(name: s.Name, among: Collection[str], lacks: str, report: Reporter) -> bool:
    """Whether a name is one of a block's; if not, that is reported."""
    if name.text in among:
        return True
    report("unknown-setting", name, f"{lacks} `{name.text}`", "", did_you_mean(name.text, among),
           fix=nearest(name.text, among))
    return False


def settings_of(r: Resolution, block: type[s.TrainingBlock] | type[s.DecodeBlock], called: str, known: Collection[str],
                nodes: Mapping[str, tuple[Statement, s.Setting]]) -> Iterator[tuple[Statement, s.Setting, Reporter]]:
    """The settings of all blocks of a kind, in their order; those that it has not, or that one block says twice, are
    reported instead.  ``nodes``: what was taken so far, written by who asks."""
    for statement in r.statements:
        if not isinstance(statement.node, block):
            continue
        report = reporter(r, statement)
        for setting in statement.node.settings:
            if not _known(setting.name, known, f"`{called}` has no setting", report):
                continue
            before = nodes.get(setting.name.text)
            if before is not None and before[0] is statement:
                report("duplicate-setting", setting.name, f"`{setting.name.text}` is said twice")
                continue
            yield statement, setting, report


def settle_training(r: Resolution) -> None:
    values: dict[str, Any] = {}
    for statement, setting, report in settings_of(r, s.TrainingBlock, "training", TRAINING, r.training_nodes):
        name = setting.name.text
        value = _training_value(name, setting, r, report)
        if value is not UNKNOWN:
            values[name] = value
            r.training_nodes[name] = (statement, setting)
    r.training = Training(**values)


def _training_value(name: str, setting: s.Setting, r: Resolution, report: Reporter) -> Any:
    if len(setting.words) != 1:
        report("missing-word" if not setting.words else "too-many-words", setting, f"`{name}` takes one value")
        return UNKNOWN
    word = setting.words[0]
    value = evaluate(word, r.names, report)
    if value is UNKNOWN:
        return UNKNOWN
    if not isinstance(value, Quantity) or value.dimension != TRAINING[name]:
        hint = f"write `{value} {dimension_name(TRAINING[name])}`" if isinstance(value,
            Quantity) and value.dimension == NUMBER else ""
        report("wrong-unit", word, f"`{name}` of `training` is {dimension_name(TRAINING[name])}, not {describe(value)}",
               "", hint)
        return UNKNOWN
    low = 0 if name in ("seed", "warmup") else 1
    whole = name not in ("learning_rate", "epochs")
    if (whole and (value.value.denominator != 1 or value.value < low)) or value.value < 0 or value.value > 10**12 or (
            not whole and value.value == 0):
        report("out-of-range", word, f"`{name}` of `training` is {'a whole number' if whole else 'a number'} "
               f"{'from ' + str(low) if whole else 'above 0'}, not {describe(value)}")
        return UNKNOWN
    return int(value.value) if whole else float(value.value)


def settle_budgets(r: Resolution) -> None:
    found: dict[str, tuple[Budget, Statement, s.Bound]] = {}
    for statement in r.statements:
        if not isinstance(statement.node, s.BudgetBlock):
            continue
        report = reporter(r, statement)
        for bound in statement.node.bounds:
            name = bound.name.text
            if not _known(bound.name, BUDGETS, "`budget` has no quantity", report):
                continue
            if bound.operator != "<=":
                report("wrong-type", bound, f"a budget is an upper bound: `{name} <= …`", f"`{bound.operator}` is not")
                continue
            value = evaluate(bound.limit, r.names, report)
            if value is UNKNOWN:
                continue
            if not isinstance(value, Quantity) or value.dimension != BUDGETS[name]:
                report("wrong-unit", bound.limit, f"`{name}` is {dimension_name(BUDGETS[name])}, not {describe(value)}")
                continue
            if value.value < 0:
                report("out-of-range", bound.limit, "a budget is not negative")
                continue
            before = found.get(name)
            if before is not None and before[1] is statement:
                report("duplicate-setting", bound.name, f"`{name}` is bounded twice")
                continue
            found[name] = (Budget(name, float(min(value.value, Fraction(10**300))), f"{name} <= {value}"), statement,
                           bound)
    r.budgets = list(found.values())
