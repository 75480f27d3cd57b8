"""The block of a policy that says how outputs become words: `decode { search beam(8); fusion density_ratio(0.3, 0.2)
}`.

What is said here travels in the program and is what `nnac run` does when it is not told otherwise.  A fusion may name
the files of its language models, beside the policy or with a path from there, `density_ratio(target="home-lm.nnc",
source="train-lm.nnc", 0.3, -0.2)`: then the program carries them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnac.diagnostics import did_you_mean, nearest
from nnac.language import syntax as s
from nnac.language.blocks import settings_of
from nnac.language.resolution import Reporter, Resolution, Statement, reporter
from nnac.language.values import UNKNOWN, describe, evaluate
from nnac.plan import Decode
from nnac.units import NUMBER, Quantity

SEARCHES = {"greedy": "the best output of every frame",
            "beam": "beam(hypotheses): the best sentences, in exact integers"}
FUSIONS = {"none": "no language model", "shallow": "shallow(weight): the target's language model",
           "density_ratio": "density_ratio(weight, less): the target's, less that of the training text",
           "internal": "internal(weight, less): the target's, less the recogniser's own"}
ARGUMENT_DOCS = {"beam": "hypotheses that are kept", "weight": "of the target's language model",
                 "less": "what is taken off: its sign may be written",
                 "target": 'file of the target\'s language model: "home-lm.nnc"',
                 "source": "file of that of the training text"}
DECODE_DOCS = {"search": "greedy, or beam(hypotheses)",
               "fusion": "language models beside the recogniser: weights of `nnac tune-fusion`",
               "max_symbols": "labels that one frame may emit",
               "delta": "nats that a hypothesis may lie behind the best",
               "blank_penalty": "nats taken from the blank at every frame",
               "length_bonus": "nats given for every label"}
# lowest and highest value, and whether a whole number is wanted: those of `search.beam.Beam` and `Fusion` in
# nnac.decode
LIMITS = {"beam": (1, 1024, True), "max_symbols": (1, 64, True), "delta": (0, 10**6, False),
          "blank_penalty": (-16, 16, False),
          "length_bonus": (-16, 16, False), "weight": (0, 4, False), "less": (-4, 4, False)}
ARGUMENTS = {"greedy": (), "beam": ("beam",), "none": (), "shallow": ("weight",), "density_ratio": ("weight", "less"),
             "internal": ("weight", "less")}
FILES = {"shallow": ("target",), "density_ratio": ("target", "source"), "internal": ("target",)}


def settle_decode(r: Resolution) -> None:
    """The settings of all `decode` blocks, a later policy's replacing those that it extends, one by one."""
    values: dict[str, Any] = {}
    for statement, setting, report in settings_of(r, s.DecodeBlock, "decode", DECODE_DOCS, r.decode_nodes):
        name = setting.name.text
        r.decode_nodes[name] = (statement, setting)
        values |= _said(name, setting, statement, r, report)
    if r.decode_nodes:
        r.decode = Decode(**values)
        if "search" in values or "search" not in r.decode_nodes:      # else that has been complained of
            _together(r, r.decode)


def _said(name: str, setting: s.Setting, statement: Statement, r: Resolution, report: Reporter) -> dict[str, Any]:
    """What a setting decides; nothing after a complaint."""
    if len(setting.words) != 1:
        report("missing-word" if not setting.words else "too-many-words", setting, f"`{name}` takes one value")
        return {}
    word = setting.words[0]
    if name not in ("search", "fusion"):
        value = _number(name, word, r, report)
        return {} if value is UNKNOWN else {name: value}
    known: Mapping[str, str] = SEARCHES if name == "search" else FUSIONS
    call = word if isinstance(word, (s.Name, s.Call)) else None
    chosen = call.text if isinstance(call, s.Name) else call.name.text if isinstance(call, s.Call) else None
    if call is None or chosen is None:
        report("wrong-type", word, f"`{name}` is {' or '.join(f'`{k}`' for k in known)}")
        return {}
    if chosen not in known:
        at = call if isinstance(call, s.Name) else call.name
        report("unknown-choice", at, f"`{name}` is one of {', '.join(f'`{k}`' for k in known)}, not `{chosen}`", "",
               did_you_mean(chosen, known), fix=nearest(chosen, known))
        return {}
    return {name: chosen} | _arguments(chosen, call, statement, r, report)


def _arguments(chosen: str, call: s.Name | s.Call, statement: Statement, r: Resolution,
               report: Reporter) -> dict[str, Any]:
    """What is in the brackets: numbers in their order or by name, files by name; a search of a bare `beam` is as wide
    as it is by itself."""
    wanted, files, found = ARGUMENTS[chosen], FILES.get(chosen, ()), dict[str, Any]()
    waiting = iter(wanted)
    for argument in call.arguments if isinstance(call, s.Call) else ():
        name = argument.name.text if argument.name is not None else next(waiting, None)
        if name not in (*wanted, *files):
            takes = ", ".join(f"`{w}`" for w in (*wanted, *files)) or "no arguments"
            report("unknown-argument", argument, f"`{chosen}` takes {takes}")
        elif name in found:
            report("duplicate-argument", argument, f"`{name}` is given twice")
        elif name in files:
            found[name] = _file(name, argument.value, statement, r, report)
        else:
            found[name] = _number(name, argument.value, r, report)
    if chosen not in ("beam",) and (lacking := [w for w in wanted if w not in found]):
        report("missing-argument", call, f"`{chosen}` needs {' and '.join(f'`{w}`' for w in lacking)}", "",
               "weights are found on a development set: `nnac tune-fusion`")
    if any(f in found for f in files) and (lacking := [f for f in files if f not in found]):
        report("missing-argument", call, f"`{chosen}` has two language models, and no file for `{lacking[0]}`", "",
               "name both, or neither: `nnac compile --lm --source-lm`")
    if isinstance(found.get("less"), float):
        found["less"] = abs(found["less"])                 # taken off, with its sign or without
    return dict.fromkeys(files, "") | {k: v for k, v in found.items() if v is not UNKNOWN}


def _file(name: str, node: Any, statement: Statement, r: Resolution, report: Reporter) -> Any:
    """The place of a file that a policy names, from the folder in which the policy lies."""
    value = evaluate(node, r.names, report)
    if value is UNKNOWN:
        return UNKNOWN
    if not isinstance(value, str) or not value or "\0" in value:
        said = "an empty text" if value == "" else describe(value)
        report("wrong-type", node, f"`{name}` is the name of a file in quotes, not {said}")
        return UNKNOWN
    place = r.scope.places.get(id(statement.file.source))
    return str((place.parent if place is not None else Path.cwd()) / value)


def files_of(r: Resolution) -> Iterator[tuple[str, Statement, s.Argument, str]]:
    """(language model beside the recogniser, statement, argument, path) of the files that a policy's fusion names."""
    if r.decode is None or "fusion" not in r.decode_nodes:
        return
    statement, setting = r.decode_nodes["fusion"]
    named = {a.name.text: a for word in setting.words for a in getattr(word, "arguments", ()) if a.name is not None}
    for name, path in r.decode.files.items():
        # where the setting has been complained of, the files are those of the one before it
        if (argument := named.get("target" if name == "lm" else "source")) is not None:
            yield name, statement, argument, path


def _number(name: str, node: Any, r: Resolution, report: Reporter) -> Any:
    value = evaluate(node, r.names, report)
    if value is UNKNOWN:
        return UNKNOWN
    low, high, whole = LIMITS[name]
    if not isinstance(value, Quantity) or value.dimension != NUMBER:
        report("wrong-unit", node, f"`{name}` is a number, not {describe(value)}")
        return UNKNOWN
    if not low <= value.value <= high or (whole and value.value.denominator != 1):
        kind = "whole number" if whole else "number"
        report("out-of-range", node, f"`{name}` is a {kind} from {low} to {high}, not {describe(value)}")
        return UNKNOWN
    return int(value.value) if whole else float(value.value)


def _together(r: Resolution, decode: Decode) -> None:
    """What only beam search can do."""
    if decode.search == "beam":
        return
    for name in ("fusion", "delta", "blank_penalty", "length_bonus"):
        if name in r.decode_nodes and (name != "fusion" or decode.fusion != "none"):
            statement, setting = r.decode_nodes[name]
            reporter(r, statement)("no-effect", setting, f"`{name}` does nothing: greedy search has no scores", "",
                                   "add `search beam(8)`", severity="warning")
