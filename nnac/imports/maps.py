"""Maps: which tensors of a toolkit are which layers.  Data, one TOML file a toolkit, or one of the user's own.

    title = "…"      blank = "first" | "last" | a number      start = "blank" | "zeros"
    [options]        numbers that no shape says; `--set NAME=VALUE` gives others
    encoder = [ … ]  prediction = [ … ]      steps, in order
    [joint]          encoder = [ … ]  prediction = [ … ]  combine = "add" | "multiply" | "concatenate"  after = [ … ]

A step is one of

    { lstm = "encoder.rnn" }   nn.LSTM with all its layers      { gru = … }  { linear = … }  { norm = … }
    { rnn = … }   one of the two, as its shapes say
    { gates = … }   an LSTM of two linear layers `x2g`, `p2g`, in torch's order of gates
    { embedding = … }   { conv = …, stride = 1 }   a causal nn.Conv1d, groups from its shape
    { stack = 2 }   frames joined      { activation = "tanh" | "relu" | "leaky_relu" | "silu" }
    { residual = [ … ] }   what the steps make is added to what they read
    { each = "encoder.layers.{i}", steps = [ … ] }   for i = 0, 1, … while such tensors are there; by = N counts in N

A step with `if = "NAME"` is one only where that tensor is there, with `unless` only where it is not.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from nnac.diagnostics import did_you_mean
from nnac.files import read_text
from nnac.imports.files import ImportError_

FOLDER = Path(__file__).parent / "toolkits"
KINDS = ("lstm", "gru", "rnn", "gates", "linear", "norm", "embedding", "conv", "stack", "activation", "residual",
         "each")
MORE = {"conv": {"stride"}, "norm": {"epsilon"}, "each": {"steps", "by"}, "activation": {"slope"}}
COMBINE = ("add", "multiply", "concatenate")
ACTIVATIONS = ("tanh", "relu", "leaky_relu", "silu")


@frozen
class Step:
    """One step: its word, what it is called or how large it is, and more."""

    word: str
    value: Any
    more: Mapping[str, Any] = field(factory=dict)
    only_if: str = ""
    unless: str = ""


@frozen
class Map:
    """See the module."""

    title: str
    encoder: tuple[Step, ...]
    prediction: tuple[Step, ...]
    joint_encoder: tuple[Step, ...]
    joint_prediction: tuple[Step, ...]
    combine: str
    after: tuple[Step, ...]
    blank: int
    start: str
    options: Mapping[str, float]
    ignore: tuple[str, ...]
    inside: tuple[str, ...]


def names() -> list[str]:
    """The toolkits that there are maps for."""
    return sorted(f.stem for f in FOLDER.glob("*.toml"))


def named(name: str) -> Map:
    """The map of a toolkit.  ImportError_: there is none."""
    if name not in names():
        raise ImportError_(f"no map is called `{name}`; {did_you_mean(name, names())}")
    return load(FOLDER / f"{name}.toml")


def load(path: str | os.PathLike[str]) -> Map:
    """A map from its file.  ImportError_: everything that is wrong with it."""
    try:
        data = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ImportError_(f"{path}: {error}") from None
    wrong: list[str] = []
    joint = data.get("joint", {})
    if not isinstance(joint, dict):
        wrong.append("`joint` is a table")
        joint = {}
    known = {"title", "blank", "start", "options", "encoder", "prediction", "joint", "ignore", "inside"}
    wrong += [f"`{k}` is not known; {did_you_mean(k, known)}" for k in data if k not in known]
    wrong += [f"joint.{k} is not known" for k in joint if k not in ("encoder", "prediction", "combine", "after")]
    parts = {n: _steps(data.get(n), n, wrong, needed=True) for n in ("encoder", "prediction")}
    more = {n: _steps(joint.get(n), f"joint.{n}", wrong, needed=n == "after") for n in ("encoder", "prediction",
                                                                                         "after")}
    combine = joint.get("combine", "add")
    if combine not in COMBINE:
        wrong.append(f"joint.combine is {', '.join(COMBINE)}, not {combine!r}")
    blank = {"first": 0, "last": -1}.get(data.get("blank", "first"), data.get("blank"))
    if not isinstance(blank, int) or isinstance(blank, bool):
        wrong.append(f"blank is first, last or a number, not {blank!r}")
    if (start := data.get("start", "blank")) not in ("blank", "zeros"):
        wrong.append(f"start is blank or zeros, not {start!r}")
    options = data.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(v, (int, float)) for v in options.values()):
        wrong.append("options are numbers by name")
    lists = {n: data.get(n, []) for n in ("ignore", "inside")}
    wrong += [f"{n} is a list of names" for n, v in lists.items() if not isinstance(v, list)
              or not all(isinstance(x, str) for x in v)]
    if wrong:
        raise ImportError_(f"{path}: {'; '.join(wrong[:8])}")
    return Map(str(data.get("title", Path(path).stem)), parts["encoder"], parts["prediction"], more["encoder"],
               more["prediction"], combine, more["after"], int(blank), str(start), options,  # type: ignore[arg-type]
               tuple(lists["ignore"]), tuple(lists["inside"]))


def _steps(data: Any, where: str, wrong: list[str], *, needed: bool = False) -> tuple[Step, ...]:
    if data is None and not needed:
        return ()
    if not isinstance(data, list) or not data:
        wrong.append(f"{where} is a list of steps")
        return ()
    out = []
    for i, entry in enumerate(data, 1):
        kinds = [k for k in KINDS if isinstance(entry, dict) and k in entry]
        if len(kinds) != 1:
            wrong.append(f"{where}, step {i}: says one of {', '.join(KINDS)}")
            continue
        word, value = kinds[0], entry[kinds[0]]
        more = {k: v for k, v in entry.items() if k not in (word, "if", "unless")}
        if odd := set(more) - MORE.get(word, set()):
            wrong.append(f"{where}, step {i}: `{sorted(odd)[0]}` is not known of `{word}`")
        if word == "residual":
            value = _steps(value, f"{where}, step {i}", wrong, needed=True)
        elif word == "each":
            more["steps"] = _steps(more.get("steps"), f"{where}, step {i}", wrong, needed=True)
        if word == "activation" and value not in ACTIVATIONS:
            wrong.append(f"{where}, step {i}: activation is {', '.join(ACTIVATIONS)}, not {value!r}")
        elif word not in ("residual", "stack") and not isinstance(value, str):
            wrong.append(f"{where}, step {i}: `{word}` names tensors")
        out.append(Step(word, value, more, str(entry.get("if", "")), str(entry.get("unless", ""))))
    return tuple(out)
