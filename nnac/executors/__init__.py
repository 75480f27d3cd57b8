"""Executors by name: one file each, found by the file's name.

An executor reads a model and keeps the protocol `nnac.evaluate.Executor`: start (`initial_state`), step an entry
(`run`), states in and out.  Its file defines ``executor(subject)``, which makes it of whatever form of the model it
reads; the first line of the file's docstring says what it is.  All executors give the same integers; ``nnac compare``
takes any two.
"""

from __future__ import annotations

import ast
import importlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from nnac.diagnostics import did_you_mean
from nnac.errors import UserError

if TYPE_CHECKING:
    from nnac.decode.front_end import FrontEnd, TextEnd
    from nnac.decode.tensors import LabelEnd, TensorEnd
    from nnac.evaluate import Executor
    from nnac.ir import QGraph
    from nnac.program import Program
    from nnac.train.policy import Trained

class EngineError(UserError):
    """No executor of that name, or it cannot read what there is; one line."""


def names() -> list[str]:
    """The names of all executors."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def summaries() -> dict[str, str]:
    """Name -> what the executor is, in a line, without importing it."""
    return {name: _first_line(Path(__file__).parent / f"{name}.py") for name in names()}


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.splitlines()[0].rstrip(".") if text else ""


def executor(name: str, subject: Subject) -> Executor:
    """The executor ``name`` of a model.  EngineError: there is none, or it cannot read this form of the model."""
    known = names()
    if name not in known:
        raise EngineError(f"no engine is called `{name}`; {did_you_mean(name, known)}")
    return importlib.import_module(f"nnac.executors.{name}").executor(subject)


@frozen(eq=False)
class Subject:
    """What is executed, in the forms that are at hand; the other forms are made of them when an executor asks.

    trained    a trained module, with its plan and front end       bound    its graph (default: the module's own)
    compiled   its program (default: compiled when asked for)      called   what to call it in a message: a file's name
    languages  language models beside it, by the names of `nnac.companions.NAMES`: entries of graph and program
    interpret  machines go instruction by instruction, instead of by translated plans
    """

    trained: Trained | None = None
    bound: QGraph | None = None
    compiled: Program | None = None
    called: str = "the model"
    languages: Mapping[str, Trained] = field(factory=dict, kw_only=True)
    interpret: bool = field(default=False, kw_only=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, interpret: bool = False) -> Subject:
        """Of a file that `nnac train` or `nnac compile` wrote.  UserError: it is neither, or damaged."""
        from nnac.checkpoint import is_checkpoint
        from nnac.program import Program

        if is_checkpoint(path):
            from nnac.train.policy import load_module

            return cls(load_module(path), called=str(path), interpret=interpret)
        return cls(compiled=Program.load(path), called=str(path), interpret=interpret)

    @cached_property
    def module(self) -> Trained:
        """EngineError: only a program is at hand."""
        if self.trained is None:
            raise EngineError(f"{self.called} is no checkpoint: this engine reads what `nnac train` wrote")
        return self.trained

    @cached_property
    def graph(self) -> QGraph:
        """The bound graph.  EngineError: only a program is at hand, and programs hold instructions."""
        from nnac.companions import assembled

        graph = self.module.module.bind() if self.bound is None else self.bound
        return assembled(graph, self.module.plan, self.languages)[0] if self.languages else graph

    @cached_property
    def program(self) -> Program:
        """The program: as given, or compiled now for the plan's target.  CompileError: it does not fit."""
        if self.compiled is not None:
            return self.compiled
        from nnac.companions import assembled
        from nnac.schedule.compile import compile_graph

        plan = self.module.plan
        graph, settings = assembled(self.graph, plan, self.languages)
        return compile_graph(graph, plan.target, settings)

    @cached_property
    def tensors(self) -> TensorEnd | LabelEnd:
        """How the arrays of a model of a user's own lie.  EngineError: this one hears audio or reads text."""
        from nnac.decode.tensors import LabelEnd, TensorEnd

        return self._end((TensorEnd, LabelEnd), "takes no tensors: it is not a model that `nnac.prepare` made")

    @cached_property
    def text(self) -> TextEnd:
        """The tokens of a language model.  EngineError: this one reads no text."""
        from nnac.decode.front_end import TextEnd

        return self._end((TextEnd,), "reads no text: it is not a language model")

    def _end(self, kind: tuple[type, ...], otherwise: str) -> Any:
        from nnac.decode.front_end import end_from_json

        try:
            end = self.trained.end if self.trained is not None else end_from_json(self.program.metadata["front_end"])
        except (KeyError, TypeError, ValueError):
            end = None
        if not isinstance(end, kind):
            raise EngineError(f"{self.called} {otherwise}")
        return end

    @cached_property
    def front(self) -> FrontEnd:
        """The front end, from whichever form carries one.  ProgramError: the program carries none."""
        if self.trained is not None:
            return self.trained.front
        from nnac.decode.front_end import front_end_of

        return front_end_of(self.program)
