"""Language models beside a recogniser, in one graph: so that one program holds them, each as an entry of its own.

A language model's graph has one entry; beside a recogniser it is called ``lm`` (the target's) or ``source_lm`` (that
of the training text), and all its names begin so.  It reads the recogniser's own tokens: the search hands both the
same labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from attrs import evolve

from nnac.arith import LOG_FRACTION
from nnac.errors import UserError
from nnac.ir import Node, QGraph
from nnac.language.beside import described
from nnac.verify import verify

if TYPE_CHECKING:
    from nnac.plan import Plan
    from nnac.schedule.compile import Settings
    from nnac.speech.tokens import Tokens
    from nnac.train.policy import Trained

NAMES = ("lm", "source_lm")


class CompanionError(UserError):
    """What cannot stand beside a recogniser, and why; one line."""


def language(path: str | os.PathLike[str], tokens: Tokens) -> Trained:
    """The language model in a file.  CompanionError: none is, or one of other tokens; CheckpointError."""
    from nnac.decode.front_end import TextEnd
    from nnac.train.policy import load_module

    found = load_module(path)
    if not isinstance(found.end, TextEnd):                                   # a recogniser hears: no text goes in
        raise CompanionError(f"{path} is no language model: what `nnac train --text` made is one")
    if found.end.tokens != tokens:
        raise CompanionError(f"{path}: not a language model of the recogniser's own tokens")
    return found


def of_policy(module: Trained, without: Collection[str] = ()) -> dict[str, Trained]:
    """The language models that a policy names the files of, but for those ``without``, which come from elsewhere.
    CompanionError, LanguageFileError, CheckpointError: one line."""
    decode, found = module.plan.decode, {}
    for name, path in (decode.files if decode is not None else {}).items():
        if name in without:
            continue
        if not os.path.isfile(path):
            raise CompanionError(f"{path}: no such file, and policy {module.plan.name} names it in `decode`: "
                                 f"--{name.replace('_', '-')} FILE gives another")
        described(path)                    # what is no language model is said in its words
        found[name] = language(path, module.front.tokens)
    return found


def renamed(name: str, entry: str) -> Callable[[str], str]:
    """How the names of a language model with the entry ``entry`` read as the companion ``name``: ``lm.lstm[0]``,
    ``label`` -> ``name.…``."""
    return lambda v: f"{name}.{v.removeprefix(f'{entry}.')}"


def beside(graph: QGraph, name: str, language: QGraph) -> QGraph:
    """The recogniser's bound graph with one more entry, ``name``.  CompanionError: not a language model, or one of
    other tokens."""
    if name in graph.inputs:
        raise CompanionError(f"{graph.name} has an entry `{name}` already")
    if len(language.inputs) != 1:
        entries = ", ".join(language.inputs)
        raise CompanionError(f"`{name}`: {language.name} is no language model: it has the entries {entries}")
    (entry, (taken,)), = language.inputs.items()
    scores = language.values[language.outputs[entry][0]]
    if language.values[taken].bits != 32 or scores.scale != 2.0**-LOG_FRACTION or scores.bits != 16:
        raise CompanionError(f"`{name}`: {language.name} is no language model: a label in, log-probabilities out")
    count = graph.values[graph.outputs["joint"][0]].width
    if scores.width != count:
        raise CompanionError(f"`{name}` says {scores.width} tokens, the recogniser {count}: they must be the same")
    to = renamed(name, entry)

    def moved(n: Node) -> Node:
        states = tuple(evolve(s, name=to(s.name)) for s in n.states)
        ins = tuple(map(to, n.inputs))
        return evolve(n, path=to(n.path), inputs=ins, output=to(n.output), entry=name, states=states)

    declared = language.declared(entry)
    ins, outs, keeps = (tuple(map(to, names)) for names in (declared.inputs, declared.outputs, declared.keeps))
    point = evolve(declared, name=name, inputs=ins, outputs=outs, keeps=keeps)
    return verify(evolve(
        graph, values=dict(graph.values) | {to(k): evolve(v, name=to(k)) for k, v in language.values.items()},
        nodes=graph.nodes + tuple(map(moved, language.nodes)), entries=(*graph.entries, point),
        inputs=dict(graph.inputs) | {name: (to(taken),)},
        outputs=dict(graph.outputs) | {name: tuple(map(to, language.outputs[entry]))}))


def assembled(graph: QGraph, plan: Plan, languages: Mapping[str, Trained]) -> tuple[QGraph, Settings]:
    """A recogniser's bound graph with all its language models beside it, and what both policies say of the program.

    Frames, rates and budgets are the recogniser's.  What is beside it already stays as it is.  Language models are
    asked by a beam search alone: where the policy says nothing of one, the program is made for one as wide as it is by
    itself.
    CompanionError: as `beside`; or a language model for another machine.
    """
    from nnac.plan import Decode
    from nnac.schedule.compile import Settings

    settings = Settings.of(plan)
    if languages and settings.hypotheses == 1:
        settings = evolve(settings, hypotheses=Decode().beam)
    for name, language in languages.items():
        if language.plan.target != plan.target:
            raise CompanionError(f"`{name}` is for the target `{language.plan.target.name}`, the recogniser for "
                                 f"`{plan.target.name}`: one program runs on one machine")
        own = language.module.bind()
        if name not in graph.inputs:
            graph = beside(graph, name, own)
        settings = settings.joined(Settings.of(language.plan).moved(renamed(name, next(iter(own.inputs)))))
    return graph, settings
