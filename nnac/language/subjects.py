"""What a policy is about: the model that it compresses and the target that it is compiled for."""

from __future__ import annotations

import inspect
from typing import Any

from nnac.diagnostics import Diagnostic, Edit, Label, Span, did_you_mean, nearest
from nnac.language import syntax as s
from nnac.language.machine import machine_of
from nnac.language.parameters import plain
from nnac.language.resolution import Memo, Reporter, Resolution, latest, reporter
from nnac.language.select import Sites
from nnac.language.tables import data_file
from nnac.language.values import UNKNOWN, describe, evaluate
from nnac.model.graph import ModelError, builders

# models that only Python can give -> what gives them
FROM_PYTHON = {"module": "nnac.prepare(model, policy, example)",
               "transducer": "nnac.prepare_transducer(encoder=…, prediction=…, joint=…, policy=…, example=…)"}


def settle_model(r: Resolution, memo: Memo | None) -> None:
    statement = latest(r, s.Model)
    if statement is None:
        return
    r.model_statement = statement
    call = statement.node.call
    report = reporter(r, statement)
    name = call if isinstance(call, s.Name) else call.name
    known = builders()
    if (gives := FROM_PYTHON.get(name.text)) and name.text not in known:
        report("model-from-python", name, f"`model {name.text}` is a model that Python gives: its layers are not known "
               "here", "", f"`{gives}` checks every rule against it", severity="warning")
        return
    if name.text not in known:
        report("unknown-model", name, f"no model is called `{name.text}`", "", did_you_mean(name.text, known),
               fix=nearest(name.text, known))
        return
    arguments = _model_arguments(r, call, known[name.text], report)
    if arguments is None:
        return
    key = (name.text, tuple(arguments.items()))
    if memo is not None and memo.model_key == key:
        r.model, r.sites = memo.model, memo.sites
        return
    try:
        r.model = known[name.text](**arguments)
    except ModelError as e:
        report("impossible-model", call, str(e))
        return
    r.sites = Sites.of(r.model)
    if memo is not None:
        memo.model_key, memo.model, memo.sites = key, r.model, r.sites
        memo.rules.clear()


def _model_arguments(r: Resolution, call: Any, build: Any, report: Reporter) -> dict[str, Any] | None:
    parameters = inspect.signature(build).parameters
    out: dict[str, Any] = {}
    clean = True
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    for i, argument in enumerate(call.arguments if isinstance(call, s.Call) else ()):
        if argument.name is None and i >= len(positional):
            report("unnamed-argument", argument, f"`{call.name.text}` takes this argument by name", "",
                   f"it has: {', '.join(parameters)}")
            clean = False
            continue
        name = argument.name.text if argument.name is not None else positional[i]
        if name not in parameters:
            report("unknown-argument", argument.name, f"`{call.name.text}` has no argument `{name}`", "",
                   did_you_mean(name, parameters),
                   fix=nearest(name, parameters))
            clean = False
            continue
        if name in out:
            report("duplicate-argument", argument, f"`{name}` is given twice")
            clean = False
            continue
        value = evaluate(argument.value, r.names, report)
        settled = plain(value)
        if settled is UNKNOWN:
            clean = False
            if value is not UNKNOWN:
                report("wrong-type", argument.value,
                       f"`{name}` of `{call.name.text}` is a number, a text, true or false, not {describe(value)}")
            continue
        wanted = str(parameters[name].annotation)
        if problem := _unfit(wanted, settled):
            report("wrong-type", argument.value, f"`{name}` of `{call.name.text}` is {problem}, not {describe(value)}")
            clean = False
        out[name] = settled
    return out if clean else None


def _unfit(annotation: str, value: Any) -> str | None:
    """What a builder's parameter wants, if ``value`` is something else.  Annotations are strings such as ``int |
    None``."""
    kinds: dict[str, tuple[Any, str]] = {"bool": (bool, "true or false"), "int": (int, "a whole number"),
                                            "float": ((int, float), "a number"), "str": (str, "a text")}
    for name, (types, words) in kinds.items():
        if annotation.startswith(name):
            right = isinstance(value, types) and (name == "bool") == isinstance(value, bool)
            return None if right else words
    return None


def settle_target(r: Resolution) -> None:
    statement = latest(r, s.UseTarget)
    if statement is None:
        return
    r.target_statement = statement
    name = statement.node.name
    report = reporter(r, statement)
    declared = r.scope.targets.get(name.text)
    if declared is None:
        shipped = sorted(f.stem for f in data_file("specs", "targets").glob("*.nnac"))
        if name.text in shipped:
            source = r.scope.file.source
            line = f'import "targets/{name.text}.nnac"'
            span = report.span(name)
            r.problems.append(Diagnostic(
                "unknown-target", f"target `{name.text}` is not imported", (Label(span),),
                                         (f"write `{line}` at the top of the file",),
                fix=(Edit(Span(source, 0, 0), line + "\n"),) if statement.file is r.scope.file else ()))
        else:
            known = [*r.scope.targets, *shipped]
            report("unknown-target", name, f"no target is called `{name.text}`", "", did_you_mean(name.text, known),
                   fix=nearest(name.text, known))
        return
    r.target = machine_of(r.scope, declared, r.problems)
