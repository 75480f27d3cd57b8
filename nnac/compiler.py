"""The pipeline on one screen: from a policy file to a program.  Every stage returns a value that prints.

    resolve(path)         specs/*.nnac -> Plan                                        (language: parse, resolve, lint)
    lower(plan)           Plan -> unbound QGraph                                      (lower)
    trained(checkpoint)   weights and scales, as a training module                    (train)
    bind(trained)         -> bound QGraph: the integers                               (train, bind)
    program(trained)      tile, encode weights, allocate, order, prove -> Program     (schedule)

and `nnac.emulator.machine.Machine(program)` runs it.  ``nnac show FILE --stage plan|graph|bound|program`` prints any of them.
"""

from __future__ import annotations

import os
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


def program(module: Trained) -> Program:
    """The scheduled program of a trained module for its plan's target, with its front end inside.  CompileError: it does not fit."""
    from nnac.schedule.compile import Settings, compile_graph

    return compile_graph(bind(module), module.plan.target, Settings.of(module.plan), plan=module.plan.to_json(),
                         metadata=dict(front_end=module.end.to_json(), training=module.training))
