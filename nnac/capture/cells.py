"""What a loop over time computes, as a layer: PyTorch's own cells as LSTM and GRU, any other whose products read frames
and one hidden state as `recurrence`.

A step's calls are divided.  Those whose results come back to them in the next step are a cell, or several, one behind
the other: layers in one loop.  All others are read as if they stood before, between or behind them, over all of the
sequence.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import networkx
import torch
from attrs import define, evolve, field
from torch import Tensor, fx

from nnac.capture.exported import mutates
from nnac.capture.loops import Loop, same
from nnac.capture.readers.recurrent import COMPUTED, plain_layer, stack
from nnac.capture.reading import MATRICES, SAME, Reading, Refusal, site_path
from nnac.capture.values import FEATURES, Axis, Lost, Sequence, StateIds, Weights, Zeros
from nnac.model.graph import GATES, GRU_GATES, Kernel
from nnac.ops._steps import FIRST, INPUT, RECURRENT, TABLES, Step, Steps
from nnac.ops.recurrence import state_name

OWN_CELLS = {"aten.lstm_cell.default": ("lstm", GATES), "aten.gru_cell.default": ("gru", GRU_GATES)}
PLAIN_CELLS = {"aten.rnn_tanh_cell.default": "tanh", "aten.rnn_relu_cell.default": "relu"}
KEPT = (*SAME, "aten.view.default", "aten.reshape.default")
MADE = {"aten.sigmoid.default": "sigmoid", "aten.sigmoid_.default": "sigmoid", "aten.tanh.default": "tanh",
        "aten.tanh_.default": "tanh", "aten.relu.default": "relu", "aten.relu_.default": "relu",
        "aten.neg.default": "neg"}
DROPPED = ("aten.dropout.default", "aten.dropout_.default")
SUMS = ("aten.add.Tensor", "aten.add_.Tensor")
DIFFERENCES = ("aten.sub.Tensor", "aten.sub_.Tensor", "aten.rsub.Scalar")
MULTIPLES = ("aten.mul.Tensor", "aten.mul_.Tensor", "aten.div.Tensor", "aten.div_.Tensor")
APART = ("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default")
NORM, SLICE = "aten.layer_norm.default", "aten.slice.Tensor"
STEPS = (*MADE, *KEPT, *DROPPED, *SUMS, *DIFFERENCES, *MULTIPLES, *APART, NORM, SLICE)         # what a cell may compute


def read_loop(r: Reading, loop: Loop, call: Any) -> None:
    """Read a loop: the values of its joins, and of what its last step leaves.  ``call`` reads one call.  Refusal: it
    is no cell, nor several."""
    found, body = turning(loop), loop.steps[1]
    every: frozenset[fx.Node] = frozenset().union(*found)
    ground = Cell(r, loop, call, frozenset(), every)
    ground.read_items()
    cells = [Cell(r, loop, call, own, every, time=ground.time, length=ground.length) for own in found]
    inner = {n: cell for cell in cells for n in cell.own}
    drawn: dict[fx.Node, list[Cell]] = {}
    for cell in cells:
        for n in cell.inside:
            drawn.setdefault(n, []).append(cell)
    joined = {body[number] for number in loop.joins.values()}
    done: list[Cell] = []
    for node in in_order(loop, cells):
        if (own := inner.get(node)) is not None:
            if own not in done:
                done.append(own)
                r.values.update(own.read())
        elif node in joined or node not in drawn or any(u not in c.inside for u in node.users for c in drawn[node]):
            ground.read_outside(node)
    for join, number in loop.joins.items():
        r.node = join
        r.values[join] = ground.joined(join, body[number])


def flows(loop: Loop) -> networkx.DiGraph:
    """The calls of a step, each from what it reads of the step, or of the step before."""
    body, out = loop.steps[1], networkx.DiGraph()
    before = {n: body[i] for i, n in enumerate(loop.steps[0]) if i in loop.begins}
    out.add_nodes_from(body)
    out.add_edges_from((before.get(a, a), n) for n in body for a in map(same, n.all_input_nodes)
                       if a in out or a in before)
    return out


def turning(loop: Loop) -> list[frozenset[fx.Node]]:
    """The cells of a loop: calls whose results come back to them.  Where one of them has no product, all are one."""
    graph = flows(loop)
    found = [frozenset(c) for c in networkx.strongly_connected_components(graph)
             if len(c) > 1 or any(graph.has_edge(n, n) for n in c)]
    multiplies = (*MATRICES, *OWN_CELLS, *PLAIN_CELLS)
    if all(any(str(n.target) in multiplies for n in cell) for cell in found):
        return found
    every = frozenset().union(*found)
    between = {n for n in graph if n not in every and networkx.ancestors(graph, n) & every
               and networkx.descendants(graph, n) & every}
    return [every | between]


def in_order(loop: Loop, cells: list[Cell]) -> Iterator[fx.Node]:
    """The calls of a step, those of a cell one after the other, each behind what it reads; as they are written where
    that leaves a choice."""
    graph, at = flows(loop), {n: i for i, n in enumerate(loop.steps[1])}
    alone = [{n} for n in graph if not any(n in cell.own for cell in cells)]
    whole = networkx.quotient_graph(graph, [*(set(c.own) for c in cells), *alone])
    for part in networkx.lexicographical_topological_sort(whole, key=lambda p: min(at[n] for n in p)):
        yield from sorted(part, key=at.__getitem__)


@define(eq=False)
class Cell:
    """A cell of a loop on its way to a layer.  A step stands for all of them: its values are those of every frame,
    without the axis of time.

    own      calls whose results come back to them in the next step      every   those of all cells of the loop
    """

    r: Reading
    loop: Loop
    call: Any
    own: frozenset[fx.Node]
    every: frozenset[fx.Node]
    steps: list[Step] = field(factory=list)
    numbers: dict[fx.Node, Any] = field(factory=dict)       # calls of the cell -> the number of their value, or several
    keep: list[int] = field(factory=list)                  # calls whose results the next step reads, element by element
    time: Axis = ()
    length: int = 0
    inside: frozenset[fx.Node] = field(init=False)         # with what is done to frames on their way into it
    before: dict[fx.Node, int] = field(init=False)         # what its own calls made in the step before -> their number

    def __attrs_post_init__(self) -> None:
        self.before = {n: i for i, n in enumerate(self.loop.steps[0])
                       if i in self.loop.begins and self.body[i] in self.own}
        ready = any(str(n.target) in (*OWN_CELLS, *PLAIN_CELLS) for n in self.own)
        self.inside = self.own if ready else self._with_frames()

    @property
    def body(self) -> tuple[fx.Node, ...]:
        """The calls of a step that is not the first one."""
        return self.loop.steps[1]

    # ----------------------------------------------------------------------------------------------------- what is what

    def carried(self, node: Any) -> int | None:
        """The number of the cell's own call whose result a step reads from the step before; None for anything else."""
        return self.before.get(same(node))

    def _with_frames(self) -> frozenset[fx.Node]:
        """The cell with what goes element by element into it, behind products of frames and what no cell computes."""
        outside: set[fx.Node] = set()
        for node in reversed(self.body):
            able = node.target is operator.getitem or str(node.target) in STEPS
            if node not in self.own and (not able or node in self.every or any(u in outside for u in node.users)):
                outside.add(node)
        out, todo = set(self.own), list(self.own)
        while todo:
            for a in map(same, todo.pop().all_input_nodes):
                if a in self.body and a not in outside and a not in out:
                    out.add(a)
                    todo.append(a)
        return frozenset(out)

    def read(self) -> dict[fx.Node, Any]:
        """The layer: its calls that others read -> their values."""
        inner = [n for n in self.body if n in self.inside]
        ready = next((n for n in inner if str(n.target) in (*OWN_CELLS, *PLAIN_CELLS)), None)
        return self._own_cell(ready, inner) if ready is not None else self._recurrence(inner)

    def read_items(self) -> None:
        """The elements of each step, as what stands for all of them."""
        r = self.r
        for node, (source, at) in self.loop.items.items():
            value = r.values.get(source)
            if not isinstance(value, Sequence) or value.last or len(value.axes[at]) != 1 or value.axes[at] == (
                    FEATURES,) or value.before or value.behind:
                raise self._refused(node, "a loop goes over something that is no sequence of the model", "")
            if not r.axes.mark(value.axes[at][0], "time"):
                raise self._refused(node, "a loop goes over the batch", "a loop over time, or none")
            if self.time and r.axes.root(self.time[0]) != r.axes.root(value.axes[at][0]) and not (
                    len(value.axes) == 3 and r.axes.same(self.time[0], value.axes[at][0])):
                raise self._refused(node, "a loop goes over two sequences of different length", "")
            self.time, self.length = self.time or value.axes[at], value.sizes[at]
            r.values[node] = value.arranged((a for i, a in enumerate(value.axes) if i != at),
                                            (n for i, n in enumerate(value.sizes) if i != at))

    def _refused(self, node: fx.Node, what: str, instead: str) -> Refusal:
        self.r.node = node
        return Refusal(what, instead)

    def read_outside(self, node: fx.Node) -> None:
        """A call that is no part of a cell."""
        if any(same(a) in self.loop.steps[0] and same(a) not in self.r.values for a in node.all_input_nodes):
            raise self._refused(node, "a loop over time reads what the step before made otherwise than as a state",
                                "a convolution reads frames that follow each other; a cell its own states")
        if any(same(a) in self.body and same(a) not in self.r.values for a in node.all_input_nodes):
            raise self._refused(node, "a loop gives something else out than its hidden state",
                                "`out.append(h)`; of a cell, its hidden state is what others read")
        self.r.node = node
        for a in node.all_input_nodes:
            if same(a) is not a:
                self.r.values[a] = self.r.values[same(a)]
        self.r.values[node] = self.call(node)

    def joined(self, join: fx.Node, node: fx.Node) -> Any:
        """What all steps made, along the axis of time again."""
        value = self.r.values.get(node)
        if isinstance(value, Lost):
            return value
        dim = int(join.args[1] if len(join.args) > 1 else join.kwargs.get("dim", 0))  # type: ignore[arg-type]
        dim %= join.meta["val"].ndim
        if not isinstance(value, Sequence):
            raise Refusal("a loop gives something else out than its hidden state", "`out.append(h)`")
        axes, sizes = list(value.axes), list(value.sizes)
        if "stack" not in str(join.target):
            if dim >= len(axes) or axes[dim] != ():
                raise Refusal("the steps of a loop are joined along an axis of their own",
                              "`torch.stack(out)`, or `torch.cat` of frames of one step")
            del axes[dim], sizes[dim]
        axes.insert(dim, self.time)
        sizes.insert(dim, self.length)
        return value.arranged(axes, sizes)

    # ------------------------------------------------------------------------------------------------------ torch's own

    def _begin(self, number: int, node: fx.Node) -> Any:
        """What a result of the step before is in the first one: zeros, or a state that the model is given."""
        begin = self.r.values.get(same(self.loop.begins[number]))
        if not isinstance(begin, (Zeros, StateIds)):
            raise self._refused(node, "a loop begins with a state that the model computes", COMPUTED)
        return begin

    def _frames(self, value: Any, node: fx.Node) -> Sequence:
        """A value of a step with the axis of time, in front."""
        if not isinstance(value, Sequence) or len(value.axes) != 2 or not value.features_last:
            raise self._refused(node, "a loop's frames are not [batch, features]", "vectors of features, last")
        return value.arranged((self.time, *value.axes), (self.length, *value.sizes))

    def _own_cell(self, cell: fx.Node, inner: list[fx.Node]) -> dict[fx.Node, Any]:
        """nn.LSTMCell and its like: the layer of many steps."""
        extra = [n for n in inner if n is not cell and not (n.target is operator.getitem and n.args[0] is cell)]
        if extra:
            raise self._refused(extra[0], "a loop changes the state of a cell of PyTorch's own between its steps",
                                "the cell's equations written out, or nn.LSTM")
        x, before, *weights = (*cell.args, None, None)[:6]
        given = list(before) if isinstance(before, (list, tuple)) else [before]
        results = [cell] if not isinstance(before, (list, tuple)) else [
            next((n for n in inner if n.target is operator.getitem and n.args[1] == i), None) for i in range(2)]
        for state, result in zip(given, results, strict=True):
            number = self.carried(state)
            if number is None or self.body[number] is not result:
                raise self._refused(cell, "a loop gives a cell another state than it had", "`h, c = cell(x, (h, c))`")
        states = [self._begin(self.carried(s) or 0, cell) for s in given]
        named = [self.r.value(w) for w in weights]
        wide = [StateIds(s.numbers[None]) if isinstance(s, StateIds) else s for s in states]
        frames, self.r.node = self._frames(self.r.value(x), cell), cell
        biases = named[2] is not None
        if (does := PLAIN_CELLS.get(str(cell.target))) is not None:
            y, final = plain_layer(self.r, does, frames, named, wide[0], self.path(named[1]))
            made = (y, StateIds(final.numbers[None]))
        else:
            kind, gates = OWN_CELLS[str(cell.target)]
            made = stack(self.r, kind, gates, frames, named[: 4 if biases else 2], biases, 1, 1.0, False, False,
                         named[1].value.shape[1], False, dict(zip(("hidden", "cell"), wide, strict=False)))
        y, *finals = made
        self._leave(dict(zip((n for n in results if n is not None), (StateIds(f.numbers[0]) for f in finals),
                             strict=False)))
        return {results[0] or cell: y.arranged(y.axes[1:], y.sizes[1:])}

    def _leave(self, finals: Mapping[fx.Node, StateIds]) -> None:
        """What the last step leaves, for those that read it there."""
        for node, state in finals.items():
            self.r.values[self.loop.steps[-1][self.body.index(node)]] = state

    def path(self, weight: Weights) -> str:
        """The layer's own, by the module of its recurrent weights."""
        own = weight.name.rpartition(".")[0]
        return self.r.fresh(site_path(own)) if own else self.r.path(own=False)

    # ------------------------------------------------------------------------------------------------------ any other

    def _recurrence(self, inner: list[fx.Node]) -> dict[fx.Node, Any]:
        """The cell's own equations."""
        r = self.r
        products = [n for n in inner if str(n.target) in MATRICES]
        hidden = {self.carried(self._through(self._vector(n))) for n in products}
        if not products:
            raise self._refused(inner[0], "a loop over time without a product of its hidden state",
                                "nn.LSTM, nn.GRU, or a cell with a matrix of its own")
        if len(hidden) != 1 or None in hidden:
            raise self._refused(products[-1], "a product in a loop reads something else than one hidden state of the "
                                "step before", "the frame's own products, and those of the hidden state")
        own, = hidden
        assert own is not None
        matrices = [self._matrix(n) for n in products]
        # states that are read otherwise than by products
        passed = set(products)
        for node in reversed(inner):
            if str(node.target) in (*KEPT, *DROPPED) and node.users and all(u in passed for u in node.users):
                self._undropped(node)
                passed.add(node)
        inner = [n for n in inner if n not in passed]
        for node in inner:
            for a in node.all_input_nodes:
                if (j := self.carried(a)) is not None and j not in self.keep:
                    self.keep.append(j)
        frames = list(dict.fromkeys(a for n in inner for a in map(same, n.all_input_nodes)
                                    if a not in inner and isinstance(r.values.get(a), Sequence)))
        source, kernel, kernel_bias, rows_of = self._input([r.values[a] for a in frames], inner[0])
        rows = len(kernel.value), sum(len(w.value) for w, _ in matrices)
        self._number(rows, frames, rows_of, products, matrices)
        for node in inner:
            r.node = node
            self.numbers[node] = self._step(node)
        steps = Steps(tuple(self.steps), self._result(own), tuple(self._result(j) for j in self.keep)).tidied()
        recurrent, recurrent_bias = _stacked(matrices)
        cells = recurrent.value.shape[1]
        r.node = products[-1]
        if wrong := steps.verified(rows, cells):
            raise Refusal(f"the cell of a loop: {wrong}", "hidden state and cells of one width")
        if steps.unread(rows, cells):
            raise Refusal("the cell of a loop computes elements that nothing reads",
                          "matrices of the rows that are read")
        path = self.path(matrices[0][0])
        r.give(path, {"weight_ih_l0": kernel, "bias_ih_l0": kernel_bias, "weight_hh_l0": recurrent,
                      "bias_hh_l0": recurrent_bias, **self._norms})
        value = r.layer(path, "recurrence", [source], cells,
                        (Kernel("input", f"{path}.input", rows[0], kernel.value.shape[1]),
                         Kernel("recurrent", f"{path}.recurrent", rows[1], cells)),
                        cells=cells, rows=rows[0], again=rows[1], steps=str(steps))
        value = value.arranged(value.axes, (*value.sizes[:-1], cells))
        self._finals(path, str(steps), own, value)
        return {self.body[own]: value}

    def _finals(self, path: str, text: str, own: int, value: Sequence) -> None:
        """States that are given, and that remain."""
        r = self.r
        sizes = value.sizes[0], value.sizes[1]
        r.lasts[path, "hidden"] = evolve(value, last=True)
        finals = {self.body[own]: StateIds(r.numbering.new(path, "hidden", sizes))}
        kinds = {own: "hidden"} | {j: name for k, j in enumerate(self.keep)
                                   if (name := state_name(text, k)) != "blend"}
        for j, kind in kinds.items():
            begin = self._begin(j, self.body[j])
            if isinstance(begin, StateIds):
                if begin.numbers.ndim != 2:
                    raise self._refused(self.body[j], "a loop begins with a state that is not [batch, features]", "")
                r.start(path, kind, begin.numbers)
            if j != own:
                finals[self.body[j]] = StateIds(r.numbering.new(path, kind, sizes))
        self._leave(finals)

    def _vector(self, product: fx.Node) -> Any:
        return product.args[1] if "addmm" in str(product.target) else product.args[0]

    def _through(self, node: Any) -> Any:
        """What a call that changes nothing reads."""
        node = same(node)
        while isinstance(node, fx.Node) and node in self.body and str(node.target) in (*KEPT, *DROPPED) and (
                node.meta["val"].shape == node.args[0].meta["val"].shape):  # type: ignore[union-attr]
            node = same(node.args[0])
        return node

    def _matrix(self, product: fx.Node) -> tuple[Weights, Weights | None]:
        """Weights [rows, cells] and bias of a product in the loop."""
        r, call = self.r, str(product.target)
        args = [r.value(a) if not isinstance(a, fx.Node) or isinstance(r.values.get(same(a)), Weights) else None
                for a in product.args]
        weight, bias = (args[1], (*args, None)[2]) if "linear" in call else (
            args[2], args[0]) if "addmm" in call else (args[1], None)
        if not isinstance(weight, Weights) or weight.value.ndim != 2 or product.kwargs or not (
                bias is None or (isinstance(bias, Weights) and bias.value.ndim == 1)):
            raise self._refused(product, "a product in a loop is not with weights of the model", "`nn.Linear`")
        if "linear" not in call:
            weight = weight.turned
        return weight, bias

    def _input(self, values: list[Sequence], node: fx.Node) -> tuple[Sequence, Weights, Weights | Tensor,
                                                                     list[tuple[int, int]]]:
        """(what the cell's first product reads, its weights and bias, the rows that make each of ``values``).  The
        matrix that makes a value is the cell's own."""
        r, made = self.r, []
        for value in values:
            if len(value.axes) != 2 or not value.features_last:
                raise self._refused(node, "a loop's frames are not [batch, features]", "vectors of features, last")
            layer = r.made.get(value.name)
            if layer is not None and "weight" in layer.operator.matrices and value.keeps == 1:
                (source,), (matrix,) = layer.inputs, layer.kernels
                bias = _again(r, layer.path, "bias") if (layer.path, "bias") in r.weights else None
                made.append((source, _again(r, layer.path, "weight"), bias, r.dropouts.get((layer.path, 0), 1.0),
                             matrix.cols))
                r.absorbed.add(layer.path)
            else:
                width = value.sizes[-1]
                made.append((value.name, Weights(torch.eye(width), ()), None, value.keeps, width))
        if not made:
            raise self._refused(node, "the cell of a loop reads no frames", "")
        if len({(source, keeps) for source, _, _, keeps, _ in made}) > 1:
            raise self._refused(node, "the cell of a loop reads several sequences",
                                "one, of which its products are made: `torch.cat([…], -1)` before the loop")
        name, _, _, keeps, width = made[0]
        kernel, biases = _stacked([(w, b) for _, w, b, _, _ in made])
        rows, first = [], 0
        for _, w, *_ in made:
            rows.append((first, first + len(w.value)))
            first += len(w.value)
        return (evolve(values[0], name=name, keeps=keeps, sizes=(*values[0].sizes[:-1], width)), kernel, biases,
                rows)

    # ------------------------------------------------------------------------------------------------------ the steps

    _norms: dict[str, Any] = field(factory=dict)

    def _put(self, op: str, *of: int, numbers: tuple[float, ...] = ()) -> int:
        step = Step(op, of, numbers)
        if step in self.steps and op != "norm":            # the same again
            return FIRST + len(self.keep) + self.steps.index(step)
        self.steps.append(step)
        return FIRST + len(self.keep) + len(self.steps) - 1

    def _number(self, rows: tuple[int, int], frames: list[fx.Node], rows_of: list[tuple[int, int]],
                products: list[fx.Node], matrices: list[tuple[Weights, Weights | None]]) -> None:
        """The values of the products, each as a part of all rows."""
        first, of = 0, list[tuple[fx.Node, int, tuple[int, int]]]()
        of += [(node, INPUT, part) for node, part in zip(frames, rows_of, strict=True)]
        for node, (weight, _) in zip(products, matrices, strict=True):
            of.append((node, RECURRENT, (first, first + len(weight.value))))
            first += len(weight.value)
        for node, product, (begin, end) in of:
            whole = (begin, end) == (0, rows[product])
            self.numbers[node] = product if whole else self._put("part", product, numbers=(begin, end))

    def _of(self, argument: Any) -> Any:
        """The number of a value of the cell, or a number of Python's, or a parameter."""
        if not isinstance(argument, fx.Node):
            return float(argument) if isinstance(argument, (int, float)) else argument
        node = same(argument)
        if (j := self.carried(node)) is not None:
            return _Value(FIRST + self.keep.index(j))
        found = self.numbers.get(node)
        return self.r.values.get(node) if found is None else found if isinstance(found, list) else _Value(found)

    def _value(self, argument: Any) -> int:
        found = self._of(argument)
        if not isinstance(found, _Value):
            raise Refusal("the cell of a loop reads something that is neither of the frame nor a state",
                          "products of the frame and of the hidden state, element by element")
        return int(found)

    def _result(self, number: int) -> int:
        return int(self.numbers[self.body[number]])

    def _width(self, node: Any) -> int:
        return int(node.meta["val"].shape[-1])

    def _step(self, node: fx.Node) -> Any:
        """The number of what a call makes; several for one that takes a vector apart."""
        r, target = self.r, str(node.target)
        if mutates(node) and r.exported.read_again(node, r.exported.wanted()):
            raise Refusal("a value is changed in place in a loop, and read again", "make a new value")
        if node.target is operator.getitem:
            return self._of(node.args[0])[node.args[1]]
        if target in MADE:
            return self._put(MADE[target], self._value(node.args[0]))
        if target in KEPT:
            if node.meta["val"].shape != node.args[0].meta["val"].shape:  # type: ignore[union-attr]
                raise Refusal("a vector of a loop's cell is arranged otherwise", "[batch, features] throughout")
            return self._value(node.args[0])
        if target in DROPPED:
            self._undropped(node)
            return self._value(node.args[0])
        if target in APART:
            return self._apart(node)
        if target == SLICE:
            return self._slice(node)
        if target == NORM:
            return self._norm(node)
        if target in (*SUMS, *DIFFERENCES, *MULTIPLES):
            a, b = (self._of(x) for x in node.args[:2])
            if target in SUMS:
                return self._sum(node, a, b)
            if target in DIFFERENCES:
                return self._difference(node, *((b, a) if "rsub" in target else (a, b)))
            if "div" in target:
                b = 1 / b if isinstance(b, float) and b else None
            return self._product(a, b)
        raise Refusal(f"`{target.split('.')[1]}` in a loop over time has no integer operator",
                      "sums, products, sigmoid, tanh, ReLU, layer norm, and parts of vectors")

    def _undropped(self, node: fx.Node) -> None:
        if str(node.target) in DROPPED and node.args[1] != 0:
            raise self._refused(node, "something is dropped within a loop",
                                "drop what goes in or comes out: nn.Dropout before or behind the loop")

    def _sum(self, node: fx.Node, a: Any, b: Any) -> int:
        if isinstance(b, float) and b == 0 and isinstance(a, _Value):
            return int(a)
        if node.kwargs.get("alpha", 1) != 1 or not isinstance(a, _Value) or not isinstance(b, _Value):
            raise Refusal("a sum in a loop of something that is neither of the frame nor a state", "a product's bias "
                          "adds a parameter")
        return self._put("sum", int(a), int(b))

    def _difference(self, node: fx.Node, a: Any, b: Any) -> int:
        if node.kwargs.get("alpha", 1) != 1 or len(node.args) > 2:
            raise Refusal("a difference of a multiple", "multiply before")
        if isinstance(a, float) and a == 1 and isinstance(b, _Value) and (of := self._sigmoid_of(int(b))) is not None:
            return self._put("sigmoid", self._put("neg", of))          # 1 - sigmoid(x), exactly
        if not isinstance(a, _Value) or not isinstance(b, _Value):
            raise Refusal("a difference in a loop with a number", "`1 - torch.sigmoid(x)` alone")
        return self._put("sum", int(a), self._put("neg", int(b)))

    def _sigmoid_of(self, value: int) -> int | None:
        """What a value is the sigmoid of."""
        at = value - FIRST - len(self.keep)
        if at < 0:
            return None
        step = self.steps[at]
        if step.op == "part" and (of := self._sigmoid_of(step.of[0])) is not None:
            return self._put("part", of, numbers=step.numbers)
        return step.of[0] if TABLES.get(step.op) == "complement" else None

    def _product(self, a: Any, b: Any) -> int:
        if isinstance(a, _Value) and isinstance(b, _Value):
            return self._put("mul", int(a), int(b))
        if isinstance(a, float):
            a, b = b, a
        if not isinstance(a, _Value) or not isinstance(b, float) or not 1e-6 < abs(b) < 1e6:
            raise Refusal("a product in a loop of something that is neither of the frame nor a state",
                          "values of the cell, or a number")
        scaled = int(a) if abs(b) == 1 else self._put("scale", int(a), numbers=(abs(b),))
        return self._put("neg", scaled) if b < 0 else scaled

    def _norm(self, node: fx.Node) -> int:
        args: Any = node.args
        value, shape, gain, bias, epsilon = (*args, None, None, 1e-5)[:5] if len(args) < 5 else args[:5]
        if list(shape) != [self._width(value)]:
            raise Refusal("layer norm over several axes in a loop", "normalise the features alone")
        k, width = sum(s.op == "norm" for s in self.steps), self._width(value)
        self._norms[f"norm{k}_weight"] = torch.ones(width) if gain is None else self.r.value(gain)
        self._norms[f"norm{k}_bias"] = torch.zeros(width) if bias is None else self.r.value(bias)
        return self._put("norm", self._value(value), numbers=(float(epsilon),))

    def _along(self, node: fx.Node, at: Any) -> None:
        if int(at) % node.args[0].meta["val"].ndim != node.args[0].meta["val"].ndim - 1:  # type: ignore[union-attr]
            raise Refusal("a vector of a loop's cell is taken apart along the batch", "along the features, `dim=-1`")

    def _apart(self, node: fx.Node) -> list[Any]:
        self._along(node, node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))
        value, first, out = self._value(node.args[0]), 0, []
        for piece in node.meta["val"]:
            out.append(_Value(self._put("part", value, numbers=(first, first + piece.shape[-1]))))
            first += piece.shape[-1]
        return out

    def _slice(self, node: fx.Node) -> int:
        args: Any = (*node.args, *(None, 0, 0, None, 1)[len(node.args):])
        _, at, first, _, step = args
        self._along(node, at)
        if step != 1:
            raise Refusal("every second feature in a loop", "features that follow each other")
        begin = int(first or 0) % self._width(node.args[0])
        return self._put("part", self._value(node.args[0]), numbers=(begin, begin + self._width(node)))


class _Value(int):
    """The number of a value of the cell."""


def _again(r: Reading, path: str, name: str) -> Weights:
    """A parameter that a layer was given, to be given to another."""
    key = path, name
    sources = () if key in r.frozen and not r.sources[key] else (r.sources[key] or f"{path}.{name}",)
    value = r.weights[key].detach().requires_grad_(key not in r.frozen)
    return Weights(value, sources, r.sources[key], r.places.get(key))


def _stacked(parts: list[tuple[Weights, Weights | None]]) -> tuple[Weights, Weights | Tensor]:
    """Rows of several matrices, and their biases, one below the other: as they are where there is one."""
    if len(parts) == 1:
        weight, bias = parts[0]
        return weight, torch.zeros(len(weight.value)) if bias is None else bias
    known = tuple(dict.fromkeys(s for w, _ in parts for s in w.sources))
    weight = Weights(torch.cat([w.value for w, _ in parts]), known)
    if not any(b is not None for _, b in parts):
        return weight, torch.zeros(len(weight.value))
    biases = [torch.zeros(len(w.value)) if b is None else b.value for w, b in parts]
    return weight, Weights(torch.cat(biases), tuple(dict.fromkeys(s for _, b in parts if b is not None
                                                                  for s in b.sources)))
