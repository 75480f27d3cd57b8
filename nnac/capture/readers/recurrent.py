"""LSTM and GRU: one layer of the graph for each layer of the call."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import fx

from nnac.capture.reading import Reading, Refusal, reads, site_path
from nnac.capture.values import Axis, Parts, Sequence, StateIds, Unread, Weights, Zeros
from nnac.model.graph import GATES, GRU_GATES, Kernel

COMPUTED = "take the state as an argument and return it, or leave it out: sequences start from zero then"


@reads("aten.lstm.input")
def lstm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    value, states, weights, biases, layers, keeps, _, bidirectional, batch_first = args
    if not all(isinstance(s, (Zeros, StateIds)) for s in states):
        raise Refusal("an LSTM is given an initial state that the model computes", COMPUTED)
    project = _projected(weights, biases, layers, bidirectional)
    return Parts(stack(r, "lstm", GATES, value, weights, biases, layers, 1 - keeps, bidirectional, batch_first,
                       weights[0].value.shape[0] // 4, project, dict(zip(("hidden", "cell"), states, strict=True))))


@reads("aten.gru.input")
def gru(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    value, state, weights, biases, layers, keeps, _, bidirectional, batch_first = args
    if not isinstance(state, (Zeros, StateIds)):
        raise Refusal("a GRU is given an initial state that the model computes", COMPUTED)
    return Parts(stack(r, "gru", GRU_GATES, value, weights, biases, layers, 1 - keeps, bidirectional, batch_first,
                       weights[1].value.shape[1], False, dict(hidden=state)))


@reads("aten.lstm.data", "aten.gru.data")
def packed(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    raise Refusal("packed sequences are taken apart by length: the machine goes step by step",
                  "give the padded sequence to the layer")


@reads("aten.rnn_tanh.input", "aten.rnn_relu.input")
def plain(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    value, state, weights, biases, layers, keeps, _, bidirectional, batch_first = args
    if not isinstance(state, (Zeros, StateIds)):
        raise Refusal("an RNN is given an initial state that the model computes", COMPUTED)
    if bidirectional:
        raise Refusal("a plain recurrent layer (nn.RNN) in both directions", "one direction, or nn.GRU")
    if not isinstance(value, Sequence) or not all(isinstance(w, Weights) for w in weights):
        raise Refusal("the RNN reads something that is no sequence of the model")
    along(r, "RNN", value, batch_first)
    own, count = weights[0].name.rpartition(".")[0], 4 if biases else 2
    base, finals = r.fresh(site_path(own)) if own else r.path(), []
    for k in range(layers):
        given = StateIds(state.numbers[k][None]) if isinstance(state, StateIds) else state
        read = evolve(value, keeps=value.keeps * keeps) if k else value
        value, final = plain_layer(r, str(node.target).split(".")[1].removeprefix("rnn_"), read,
                                   weights[count * k: count * (k + 1)], given,
                                   base if layers == 1 else f"{base}.layer[{k}]", batch_first)
        finals.append(final.numbers)
    return Parts((value, StateIds(torch.stack(finals))))


def plain_layer(r: Reading, does: str, value: Sequence, weights: list[Any], state: Any, path: str,
                batch_first: bool = False) -> tuple[Sequence, StateIds]:
    """One plain recurrent layer over [T, B, C]: a sum, and tanh or ReLU of it; (its output, its last state [B, cells]).

    weights  of the input and of the hidden state, and their biases or None      state  [1, B, cells] or zeros
    """
    input_weight, weight, *biases = weights
    rows, cells = weight.value.shape
    given = dict(weight_ih_l0=input_weight, weight_hh_l0=weight)
    for name, bias in zip(("bias_ih_l0", "bias_hh_l0"), (*biases, None, None), strict=False):
        given[name] = torch.zeros(rows) if bias is None else bias
    r.give(path, given)
    value = r.layer(path, "recurrence", [value], cells,
                    (Kernel("input", f"{path}.input", rows, input_weight.value.shape[1]),
                     Kernel("recurrent", f"{path}.recurrent", rows, cells)), cells=cells, rows=rows,
                    again=rows, steps=f"sum 0 1; {does} 2; hidden 3; keep")
    time = 1 if batch_first else 0
    rest = [i for i in range(3) if i != time]
    r.lasts[path, "hidden"] = evolve(value, axes=tuple(value.axes[i] for i in rest),
                                     sizes=tuple(value.sizes[i] for i in rest), last=True)
    if isinstance(state, StateIds):
        r.start(path, "hidden", state.numbers[0])
    return value, StateIds(r.numbering.new(path, "hidden", (value.sizes[rest[0]], cells)))


def along(r: Reading, name: str, value: Sequence, batch_first: bool) -> tuple[Axis, Axis]:
    """(time, batch) of what a recurrent layer reads.  Refusal: it is not [T, B, C]."""
    if len(value.axes) != 3 or not value.features_last or value.last:
        raise Refusal(f"the {name} reads a value that is not [T, B, C]",
                      "time, batch and features, in this order or batch first")
    time, batch = (value.axes[1], value.axes[0]) if batch_first else (value.axes[0], value.axes[1])
    for axis, role in ((time, "time"), (batch, "batch")):
        if len(axis) > 1 or (role == "time" and not axis):
            raise Refusal(f"the {name} goes along an axis that is not one of the input's own",
                          "keep time and batch apart")
        if axis and not r.axes.mark(axis[0], role):
            raise Refusal(f"an axis is time for one recurrent layer and batch for another "
                          f"({'batch_first' if batch_first else 'time first'} here)",
                          "say `batch_first` for all or none, or transpose between them")
    return time, batch


def _projected(weights: list[Weights], biases: bool, layers: int, bidirectional: bool) -> bool:
    return len(weights) // (layers * (2 if bidirectional else 1)) == (5 if biases else 3)


def stack(r: Reading, kind: str, gates: tuple[str, ...], value: Any, weights: list[Weights], biases: bool, layers: int,
          keeps: float, bidirectional: bool, batch_first: bool, cells: int,
          project: bool, states: dict[str, Any]) -> tuple[Any, ...]:
    """All layers and directions of an operator with these gates; (output sequence, its final states).

    states  by kind: what it begins with, [layers, B, width] or zeros
    """
    if not isinstance(value, Sequence) or not all(isinstance(w, Weights) for w in weights):
        raise Refusal(f"the {kind.upper()} reads something that is no sequence of the model")
    time, _ = along(r, kind.upper(), value, batch_first)
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if biases else ()),
             *(("weight_hr",) if project else ()))
    directions = ("forward", "backward") if bidirectional else ("",)
    own = weights[0].name.rpartition(".")[0]
    base = r.fresh(site_path(own)) if own else r.path()
    finals: dict[str, list[torch.Tensor]] = {kind: [] for kind in states}
    if bidirectional and any(isinstance(s, StateIds) for s in states.values()):
        raise Refusal(f"a bidirectional {kind.upper()} is given an initial state", "sequences start from zero there")
    rest = list(weights)
    for k in range(layers):
        path = base if layers == 1 else f"{base}.layer[{k}]"
        given: dict[str, Any] = {}
        kernels: list[Kernel] = []
        hidden = 0
        for i, direction in enumerate(directions):
            suffix = "_reverse" if i else ""
            of: dict[str, Any] = {name: rest.pop(0) for name in kinds}
            rows, hidden = of["weight_ih"].value.shape[0], of["weight_hh"].value.shape[1]
            if not biases:
                of |= {"bias_ih": torch.zeros(rows), "bias_hh": torch.zeros(rows)}
            given |= {f"{name}_l0{suffix}": w for name, w in of.items()}
            at = f"{path}.{direction}" if direction else path
            kernels += [Kernel("input", f"{at}.input", rows, of["weight_ih"].value.shape[1], gates),
                        Kernel("recurrent", f"{at}.recurrent", rows, hidden, gates)]
            if project:
                kernels.append(Kernel("project", f"{at}.project", hidden, cells))
        r.give(path, given)
        read = evolve(value, keeps=value.keeps * keeps) if k else value
        value = r.layer(path, kind, [read], hidden * len(directions), tuple(kernels), cells=cells,
                        bidirectional=bidirectional,
                        project=hidden if project else 0)
        if bidirectional:
            continue
        rows = value.sizes[0] * value.sizes[1] // value.sizes[value.axes.index(time)]
        steps = value.axes.index(time)
        last = evolve(value, axes=tuple(a for i, a in enumerate(value.axes) if i != steps),
                      sizes=tuple(n for i, n in enumerate(value.sizes) if i != steps), last=True)
        r.lasts[path, "hidden"] = last
        for state, given in states.items():
            width = hidden if state == "hidden" else cells
            finals[state].append(r.numbering.new(path, state, (rows, width)))
            if isinstance(given, StateIds):
                r.start(path, state, given.numbers[k])
    if bidirectional:
        unread = Unread("the final state of a bidirectional layer", "read its output sequence")
        return value, *(unread for _ in states)
    return value, *(StateIds(torch.stack(numbers)) for numbers in finals.values())
