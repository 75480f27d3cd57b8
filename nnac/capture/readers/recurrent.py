"""LSTM and GRU: one layer of the graph for each layer of the call."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import fx

from nnac.capture.reading import Reading, Refusal, reads, site_path
from nnac.capture.values import FinalState, Parts, Sequence, Unread, Weights, Zeros
from nnac.model.graph import GATES, GRU_GATES, Kernel


@reads("aten.lstm.input")
def lstm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    value, states, weights, biases, layers, keeps, _, bidirectional, batch_first = args
    if not all(isinstance(s, Zeros) for s in states):
        raise Refusal("an LSTM is given an initial state", "sequences start from zero here: leave the state out")
    project = _projected(weights, biases, layers, bidirectional)
    output, hidden = stack(r, "lstm", GATES, value, weights, biases, layers, 1 - keeps, bidirectional, batch_first,
                           weights[0].value.shape[0] // 4, project)
    cell = Unread("the cell state of an LSTM", "read its output sequence, or the last step of it: `y[-1]`")
    return Parts((output, hidden, cell))


@reads("aten.gru.input")
def gru(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    value, state, weights, biases, layers, keeps, _, bidirectional, batch_first = args
    if not isinstance(state, Zeros):
        raise Refusal("a GRU is given an initial state", "sequences start from zero here: leave the state out")
    if bidirectional:
        raise Refusal("there is no bidirectional GRU", "a bidirectional LSTM, or a GRU that goes forward")
    return Parts(stack(r, "gru", GRU_GATES, value, weights, biases, layers, 1 - keeps, False, batch_first,
                       weights[1].value.shape[1]))


@reads("aten.lstm.data", "aten.gru.data")
def packed(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    raise Refusal("packed sequences are taken apart by length: the machine goes step by step",
                  "give the padded sequence to the layer")


@reads("aten.rnn_tanh.input", "aten.rnn_relu.input")
def plain(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    raise Refusal("a plain recurrent layer (nn.RNN) has no integer operator", "nn.LSTM or nn.GRU")


def _projected(weights: list[Weights], biases: bool, layers: int, bidirectional: bool) -> bool:
    return len(weights) // (layers * (2 if bidirectional else 1)) == (5 if biases else 3)


def stack(r: Reading, kind: str, gates: tuple[str, ...], value: Any, weights: list[Weights], biases: bool, layers: int,
          keeps: float, bidirectional: bool, batch_first: bool, cells: int,
          project: bool = False) -> tuple[Sequence, FinalState | Unread]:
    """All layers and directions of an operator with these gates; (output sequence, final hidden state)."""
    if not isinstance(value, Sequence) or not all(isinstance(w, Weights) for w in weights):
        raise Refusal(f"the {kind.upper()} reads something that is no sequence of the model")
    if len(value.axes) != 3 or not value.features_last or value.last:
        raise Refusal(f"the {kind.upper()} reads a value that is not [T, B, C]",
                      "time, batch and features, in this order or batch first")
    time, batch = (value.axes[1], value.axes[0]) if batch_first else (value.axes[0], value.axes[1])
    for axis, role in ((time, "time"), (batch, "batch")):
        if len(axis) > 1 or (role == "time" and not axis):
            raise Refusal(f"the {kind.upper()} goes along an axis that is not one of the input's own",
                          "keep time and batch apart")
        if axis and not r.axes.mark(axis[0], role):
            raise Refusal(f"an axis is time for one recurrent layer and batch for another "
                          f"({'batch_first' if batch_first else 'time first'} here)",
                          "say `batch_first` for all or none, or transpose between them")
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if biases else ()),
             *(("weight_hr",) if project else ()))
    directions = ("forward", "backward") if bidirectional else ("",)
    own = weights[0].name.rpartition(".")[0]
    base = r.fresh(site_path(own)) if own else r.path()
    finals: list[Sequence] = []
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
        finals.append(value)
    steps = value.axes.index(time)
    last = tuple(evolve(v, axes=tuple(a for i, a in enumerate(v.axes) if i != steps),
                        sizes=tuple(s for i, s in enumerate(v.sizes) if i != steps), last=True) for v in finals)
    hidden_state = FinalState(last) if not bidirectional else Unread("the final state of a bidirectional layer",
                                                                     "read its output sequence")
    return value, hidden_state

