"""The model graph: named layers, their kernels and gates, and how values flow between them.

A policy addresses *sites*: the path of a layer (``encoder.lstm[0]``), of one of its kernels
(``encoder.lstm[0].input``), or of one gate of a kernel (``encoder.lstm[0].input.gate.i``).  Everything here is shapes
and names: the linter reads it in milliseconds, without torch, NumPy or networkx; ``ModelGraph.graph`` gives the
networkx view.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, field, frozen

from nnac.entry import EntryPoint
from nnac.errors import ABSURD
from nnac.ops import Operator, operator

if TYPE_CHECKING:
    import networkx

GATES = ("i", "f", "g", "o")      # row blocks of an LSTM kernel, in the order of torch.nn.LSTM
GRU_GATES = ("r", "z", "n")
STEP = re.compile(r"([^\[\]]+)(?:\[(\d{1,9})\])?$")     # of a path: a name, and perhaps a number
MOST = 1 << 31                    # of a layer's width, and of anything else of it


class ModelError(ValueError):
    """A model that cannot be built: unknown builder, unknown or impossible size."""


@frozen
class Kernel:
    """A weight matrix of a layer: ``rows`` outputs by ``cols`` inputs; ``gates`` name equal blocks of rows."""

    name: str
    path: str
    rows: int
    cols: int
    gates: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        return self.rows * self.cols

    @property
    def gate_rows(self) -> int:
        return self.rows // max(1, len(self.gates))

    @property
    def sites(self) -> tuple[str, ...]:
        """The kernel's own path and those of its gates."""
        return (self.path, *(f"{self.path}.gate.{g}" for g in self.gates))


@frozen
class Layer:
    """One named layer.

    path     ``encoder.lstm[0]``
    kind     stack | lstm | gru | layer_norm | embedding | linear | add | multiply | tanh | concat | log_softmax …
    inputs   paths of the layers (or entry inputs) it reads
    width    size of its output vector
    rate     how many output frames it makes for one step of its entry point
    entry    name of the entry point that it belongs to (``ModelGraph.entries``)
    """

    path: str
    kind: str
    inputs: tuple[str, ...]
    width: int
    rate: int
    entry: str
    kernels: tuple[Kernel, ...] = ()
    attributes: dict[str, Any] = field(factory=dict, hash=False)

    @property
    def recurrent(self) -> bool:
        return self.operator.recurrent

    @property
    def operator(self) -> Operator:
        """What is known of its kind.  GraphError if there is no such operator."""
        return operator(self.kind)

    @property
    def weights(self) -> int:
        return sum(k.weights for k in self.kernels)

    @property
    def macs(self) -> int:
        """Multiply-accumulates in one step of the entry point."""
        return self.rate * sum(k.weights for k in self.kernels if not self.operator.by_index)

    @property
    def sites(self) -> tuple[str, ...]:
        return (self.path, *(s for k in self.kernels for s in k.sites))

    def check(self) -> None:
        """ValueError, or whatever its operator raises, where it cannot be a layer of its kind."""
        from nnac.formats import Precision

        sizes = [self.width, self.rate, *(n for k in self.kernels for n in (k.rows, k.cols))]
        if not all(0 < n <= MOST for n in sizes) or any(k.gates and k.rows % len(k.gates) for k in self.kernels):
            raise ValueError(f"`{self.path}` is of impossible sizes")
        if not all(STEP.match(step) for site in self.sites for step in site.split(".")):
            raise ValueError(f"`{self.path}` has a name that no policy can say")
        if len(self.inputs) != self.operator.inputs:
            raise ValueError(f"`{self.path}` ({self.kind}) takes {self.operator.inputs} inputs, not {len(self.inputs)}")
        if odd := [k.name for k in self.kernels if k.name not in self.operator.meets]:
            raise ValueError(f"`{self.path}` ({self.kind}) has no kernel `{odd[0]}`")
        self.operator.attributes(self, Precision())
        self.operator.states(self, Precision())


@frozen
class ModelGraph:
    """A model: its layers in dependency order, and the ways into it.

    entries   as the builder declares them, in the order in which a step of the model runs them; the first one sets the
              pace, and cycles and latency are said of its steps.  What they take, return and keep is read off the
              layers
    frame_ms  time that one step of the first entry covers, None for models that hear no time
    """

    name: str
    arguments: dict[str, Any] = field(hash=False)
    layers: tuple[Layer, ...] = ()
    inputs: dict[str, int] = field(factory=dict, hash=False)      # entry input -> width
    frame_ms: float | None = None
    entries: tuple[EntryPoint, ...] = field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        declared = sorted(e.name for e in self.entries)
        if declared != (needed := sorted({layer.entry for layer in self.layers})):
            raise ModelError(f"{self.name}: entries are declared once each, and have layers: "
                             f"declared {', '.join(declared) or 'none'}; in the layers {', '.join(needed) or 'none'}")
        object.__setattr__(self, "entries", tuple(self._complete(e) for e in self.entries))

    def _complete(self, entry: EntryPoint) -> EntryPoint:
        """The entry with what its layers take, return (what its last layer makes, unless it says so itself) and
        keep."""
        inside = [layer for layer in self.layers if layer.entry == entry.name]
        made = {layer.path for layer in inside}
        taken = dict.fromkeys(i for layer in inside for i in layer.inputs if i not in made)
        return evolve(entry, inputs=tuple(taken), outputs=entry.outputs or (inside[-1].path,),
                      keeps=tuple(layer.path for layer in inside if layer.recurrent or layer.operator.remembers))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def entry(self, name: str) -> EntryPoint:
        """The entry point called ``name``.  KeyError if there is none."""
        return self._entries[name]

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        return {e.name: e for e in self.entries}

    @cached_property
    def by_path(self) -> dict[str, Layer]:
        return {layer.path: layer for layer in self.layers}

    @cached_property
    def kernels(self) -> dict[str, Kernel]:
        return {k.path: k for layer in self.layers for k in layer.kernels}

    @cached_property
    def sites(self) -> tuple[str, ...]:
        return tuple(s for layer in self.layers for s in layer.sites)

    def layer_of(self, site: str) -> Layer:
        """The layer that owns ``site`` (a layer, kernel or gate path).  KeyError if there is none."""
        return self._owner[site]

    @cached_property
    def _owner(self) -> dict[str, Layer]:
        return {s: layer for layer in self.layers for s in layer.sites}

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: how a model that no builder of nnac builds anew travels in its plan."""
        return asdict(self, value_serializer=lambda _, __, v: list(v) if isinstance(v, tuple) else v)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelGraph:
        """The graph that ``to_json`` described.  ModelError if it is not one."""
        from nnac.checked import checked

        try:
            said = checked(_Written, data)
            made = cls(said.name, said.arguments, said.layers, said.inputs, said.frame_ms,
                       entries=tuple(map(EntryPoint.from_json, said.entries)))
            if not made.layers or len(set(made.sites)) < len(made.sites) or set(made.inputs) & set(made.by_path):
                raise ValueError("no layers, or two things of one name")
            known = set(made.inputs)
            for layer in made:
                if missing := [i for i in layer.inputs if i not in known]:
                    raise ValueError(f"`{layer.path}` reads `{missing[0]}`, which nothing before it makes")
                layer.check()
                known.add(layer.path)
            if lost := [o for e in made.entries for o in (*e.inputs, *e.outputs) if o not in known]:
                raise ValueError(f"an entry takes or returns `{lost[0]}`, which is nowhere")
            return made
        except ABSURD as error:
            raise ModelError(f"not a model graph: {type(error).__name__}: {error}") from None

    @property
    def graph(self) -> networkx.DiGraph:
        """The same model as a networkx graph: one node a layer (attribute ``layer``), one edge a value."""
        import networkx  # 0.2 s: only who asks for the graph pays

        g = networkx.DiGraph(name=self.name)
        for name, width in self.inputs.items():
            g.add_node(name, kind="input", width=width)
        for layer in self.layers:
            g.add_node(layer.path, layer=layer, kind=layer.kind, width=layer.width)
            for source in layer.inputs:
                g.add_edge(source, layer.path)
        assert networkx.is_directed_acyclic_graph(g), "recurrence lives inside layers, never between them"
        return g


@frozen
class _Written:
    """What `ModelGraph.to_json` writes; ``entries`` are read by their own class."""

    name: str
    arguments: dict[str, Any]
    layers: tuple[Layer, ...]
    inputs: dict[str, int]
    frame_ms: float | None
    entries: tuple[dict[str, Any], ...]


_BUILDERS: dict[str, str] = {name: f"nnac.model.{name}" for name in ("rnnt", "conformer", "lm", "sparse_dnn",
                                                                     "hybrid", "saved")}
_REGISTERED: dict[str, Callable[..., ModelGraph]] = {}


def builder(function: Callable[..., ModelGraph]) -> Callable[..., ModelGraph]:
    """Register a model builder under its own name; its keyword arguments become the arguments of ``model
    name(...)``."""
    _REGISTERED[function.__name__] = function
    return function


@contextmanager
def lent(name: str, graph: ModelGraph) -> Iterator[None]:
    """Within: ``model name`` means ``graph``."""
    before = _REGISTERED.get(name)
    _REGISTERED[name] = lambda: graph
    try:
        yield
    finally:
        _REGISTERED.pop(name)
        if before is not None:
            _REGISTERED[name] = before


def packaged(name: str) -> bool:
    """Whether nnac itself has the builder, so that its name and arguments are enough to build the model anywhere."""
    return name in _BUILDERS


def builders() -> dict[str, Callable[..., ModelGraph]]:
    """All builders by name, nnac's own first, whatever was imported first."""
    for module in _BUILDERS.values():
        importlib.import_module(module)
    return {name: _REGISTERED[name] for name in dict.fromkeys((*_BUILDERS, *_REGISTERED))}


def build(name: str, **arguments: Any) -> ModelGraph:
    """Build the model ``name``.  ModelError for an unknown name or argument, or an impossible size."""
    known = builders()
    if name not in known:
        raise ModelError(f"no model is called `{name}` (there are: {', '.join(sorted(known))})")
    accepted = inspect.signature(known[name]).parameters
    for argument in arguments:
        if argument not in accepted:
            raise ModelError(f"model `{name}` has no argument `{argument}` (it has: {', '.join(accepted)})")
    return known[name](**arguments)
