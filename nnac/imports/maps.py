"""Maps: which tensors of a toolkit are which layers.  Data, one TOML file a toolkit, or one of the user's own.

    title = "…"      blank = "first" | "last" | a number      start = "blank" | "zeros"
    features = "kaldi" | "log_mel"      what it was trained on, where that is known (`nnac.speech.features`)
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from nnac.checked import Wrong, parse_toml, shown
from nnac.diagnostics import did_you_mean
from nnac.files import read_text
from nnac.imports.files import ImportError_
from nnac.speech.features import KINDS as FEATURES

FOLDER = Path(__file__).parent / "toolkits"
KINDS = ("lstm", "gru", "rnn", "gates", "linear", "norm", "embedding", "conv", "stack", "activation", "residual",
         "each")
MORE = {"conv": {"stride"}, "norm": {"epsilon"}, "each": {"steps", "by"}, "activation": {"slope"}}
COMBINE = ("add", "multiply", "concatenate")
ACTIVATIONS = ("tanh", "relu", "leaky_relu", "silu")
MOST = 1000                    # of anything that a map counts: frames that are joined, a stride


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
    features: str | None = None


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
        data = parse_toml(read_text(path))
    except Wrong as error:
        raise ImportError_(f"{path}: {error}") from None
    wrong: list[str] = []
    joint = data.get("joint", {})
    if not isinstance(joint, dict):
        wrong.append("`joint` is a table")
        joint = {}
    known = {"title", "blank", "start", "options", "encoder", "prediction", "joint", "ignore", "inside",
             "features"}
    wrong += [f"`{k}` is not known; {did_you_mean(k, known)}" for k in data if k not in known]
    wrong += [f"joint.{k} is not known" for k in joint if k not in ("encoder", "prediction", "combine", "after")]
    options = data.get("options", {})
    if not isinstance(options, dict) or not all(whole(v) for v in options.values()):
        wrong.append(f"options are whole numbers from 1 to {MOST} by name")
        options = {}
    parts = {n: _steps(data.get(n), n, wrong, options, needed=True) for n in ("encoder", "prediction")}
    more = {n: _steps(joint.get(n), f"joint.{n}", wrong, options, needed=n == "after")
            for n in ("encoder", "prediction", "after")}
    combine = joint.get("combine", "add")
    if combine not in COMBINE:
        wrong.append(f"joint.combine is {', '.join(COMBINE)}, not {shown(combine)}")
    blank = data.get("blank", "first")
    if isinstance(blank, str):
        blank = {"first": 0, "last": -1}.get(blank, blank)
    if not isinstance(blank, int) or isinstance(blank, bool) or abs(blank) >= 1 << 31:
        wrong.append(f"blank is first, last or a number, not {shown(blank)}")
    if (start := data.get("start", "blank")) not in ("blank", "zeros"):
        wrong.append(f"start is blank or zeros, not {shown(start)}")
    lists = {n: data.get(n, []) for n in ("ignore", "inside")}
    wrong += [f"{n} is a list of names" for n, v in lists.items() if not isinstance(v, list)
              or not all(isinstance(x, str) for x in v)]
    if (features := data.get("features")) not in (None, *FEATURES):
        wrong.append(f"features is {' or '.join(FEATURES)}, not {shown(features)}")
    if wrong:
        raise ImportError_(f"{path}: {'; '.join(wrong[:8])}")
    return Map(str(data.get("title", Path(path).stem)), parts["encoder"], parts["prediction"], more["encoder"],
               more["prediction"], combine, more["after"], int(blank), str(start), options,  # type: ignore[arg-type]
               tuple(lists["ignore"]), tuple(lists["inside"]), features)  # type: ignore[arg-type]


def whole(value: Any) -> bool:
    """Whether it is a number of frames, or of anything else that a map counts."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value in range(1, MOST + 1)


def _steps(data: Any, where: str, wrong: list[str], options: Mapping[str, Any], *,
           needed: bool = False) -> tuple[Step, ...]:
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
        if said := _amiss(word, value, more, options):
            wrong.append(f"{where}, step {i}: {said}")
        if word == "residual":
            value = _steps(value, f"{where}, step {i}", wrong, options, needed=True)
        elif word == "each":
            more["steps"] = _steps(more.get("steps"), f"{where}, step {i}", wrong, options, needed=True)
        out.append(Step(word, value, more, str(entry.get("if", "")), str(entry.get("unless", ""))))
    return tuple(out)


def _amiss(word: str, value: Any, more: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """What is wrong with what one step says; "" where nothing is."""
    counts = [k for k in ("stride", "by") if k in more and not whole(more[k])]
    if counts:
        return f"`{counts[0]}` is a whole number from 1 to {MOST}, not {shown(more[counts[0]])}"
    epsilon = more.get("epsilon", 1e-5)
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon <= 1:
        return f"`epsilon` is a number above 0 and at most 1, not {shown(epsilon)}"
    if word == "activation":
        return "" if value in ACTIVATIONS else f"activation is {', '.join(ACTIVATIONS)}, not {shown(value)}"
    if word == "stack":
        known = value in options if isinstance(value, str) else whole(value)
        return "" if known else (f"`stack` is a whole number from 1 to {MOST} or the name of an option, not "
                                 f"{shown(value)}")
    if word == "residual":
        return ""
    if not isinstance(value, str) or not all(value.split(".")):
        return f"`{word}` names tensors"
    return f"`each` has {{i}} in its name, not {shown(value)}" if word == "each" and "{i}" not in value else ""
