"""The pipeline on one screen: from a policy file to a program.  Every stage returns a value that prints.

    resolve(path)         specs/*.nnac -> Plan                                        (language: parse, resolve, lint)
    lower(plan)           Plan -> unbound QGraph                                      (lower)
    trained(checkpoint)   weights and scales, as a training module                    (train)
    bind(trained)         -> bound QGraph: the integers                               (train, bind)
    program(trained)      tile, encode weights, allocate, order, prove -> Program     (schedule)

and `nnac.emulator.machine.Machine(program)` runs it.  ``nnac show FILE --stage plan|graph|bound|program`` prints any
of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.ir import QGraph
    from nnac.plan import Plan
    from nnac.program import Program
    from nnac.train.policy import Trained


def resolve(path: str | os.PathLike[str], policy: str | None = None, **parameters: Any) -> Plan:
    """The plan of a policy file.  DiagnosticError with everything that is wrong with it."""
    from nnac.policy import load

    return load(path, policy, **parameters).plan


def lower(plan: Plan) -> QGraph:
    """The unbound graph of integer operators."""
    from nnac.lower import lower_plan

    return lower_plan(plan)


def trained(path: str | os.PathLike[str]) -> Trained:
    """A trained module, its plan and its front end.  CheckpointError."""
    from nnac.train.policy import load_module

    return load_module(path)


def bind(module: Trained) -> QGraph:
    """The bound graph: the integers that the trained module computes with."""
    return module.module.bind()


def program(module: Trained, languages: Mapping[str, Trained] | None = None, beam: int | None = None) -> Program:
    """The scheduled program of a trained module for its plan's target, with its front end inside.

    languages  language models beside it, by the names of `nnac.companions.NAMES`: entries of the same program; None:
               those that the policy names
    beam       hypotheses that the search will hold; None: what the policy says
    CompileError: it does not fit.  CompanionError: a language model of other tokens, or for another machine.
    """
    from attrs import evolve

    from nnac.companions import assembled, of_policy
    from nnac.schedule.compile import compile_graph

    plan = module.plan
    languages = of_policy(module) if languages is None else languages
    if plan.decode is not None:
        plan = evolve(plan, decode=plan.decode.named)
    graph, settings = assembled(bind(module), module.plan, languages)
    settings = settings if beam is None else evolve(settings, hypotheses=beam)
    beside = {name: dict(plan=t.plan.digest, training=t.training) for name, t in languages.items()}
    more = dict(languages=beside) if beside else {}
    return compile_graph(graph, plan.target, settings, plan=plan.to_json(),
                         metadata=dict(front_end=module.end.to_json(), training=module.training) | more)
