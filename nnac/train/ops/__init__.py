"""How operators are trained, one a file: ``nnac/train/ops/<kind>.py`` is the layer of that operator, with its gradient.

Every layer can be read twice: ``integers`` (what the NNA computes, with gradients) and ``reals`` (the float network,
for calibration and for switching a layer off).  ``constants`` makes the integer constants with `nnac.bind`;
``integers`` computes with these very constants and `GraphModule.bind` writes them into the graph: there is nothing to
keep in step. Parameters have the names of torch.nn.LSTM, Linear, LayerNorm and Embedding.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from nnac import bind
from nnac.ir import Node, QGraph
from nnac.train.format import Format
from nnac.train.quantiser import KernelQuantiser, WeightQuantiser
from nnac.train.schedule import Slot

State = dict[str, Tensor]
Quantiser = WeightQuantiser | KernelQuantiser
# kernel path, float weight, container bits -> what gives forward(w) = (codes, scale)
MakeQuantiser = Callable[[str, Tensor, int], Quantiser]
_LAYERS: dict[str, type[Layer]] = {}


def numbers(x: Any) -> np.ndarray:
    """A tensor (or number) as float64 NumPy."""
    return x.detach().to("cpu", torch.float64).numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)


def real(quantised: tuple[Tensor, Any]) -> Tensor:
    """What codes and their scale (a number, or one a row) stand for."""
    codes, scale = quantised
    return codes * (scale[:, None] if isinstance(scale, Tensor) and scale.ndim == 1 else scale)


def valid(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The frames of [T, B, C] that lie within each row's length; all of them without lengths (or where lengths do not
    belong to x)."""
    if lengths is None or x.ndim != 3:
        return x
    return x[torch.arange(x.shape[0], device=x.device)[:, None] < lengths]


def delayed(y: Tensor, first: Tensor) -> Tensor:
    """[T, B, C] a frame later, ``first`` [B, C] before: the hidden states that meet a recurrent kernel."""
    return torch.cat([first[None], y[:-1]])


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """[T, B, C] backwards in time, each row within its own length (all of T without lengths).

    What lies behind a row's end stays.
    """
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    at = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, at[:, :, None].expand_as(x))


@frozen(eq=False)
class Constants:
    """What a layer computes with: NumPy constants for the graph, and what is ready for kernels on its device."""

    graph: dict[str, np.ndarray] = field(factory=dict)
    codes: dict[str, Tensor] = field(factory=dict)         # float32, differentiable; stored as integers in the graph
    ready: dict[str, Any] = field(factory=dict)

    @classmethod
    def of(cls, graph: dict[str, np.ndarray], device: torch.device) -> Constants:
        """Those of a layer without parameters: ready is what the graph has."""
        return cls(graph, {}, on_device(graph, device))

    def bound(self) -> dict[str, np.ndarray]:
        """The constants of the bound node."""
        fits8 = lambda v: -128 <= float(v.min()) and float(v.max()) <= 127  # noqa: E731
        return {k: bind.storage(numbers(v), 8 if fits8(v) else 16) for k, v in self.codes.items()} | self.graph


def on_device(constants: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """The same as int64 tensors there."""
    return {k: torch.as_tensor(np.asarray(v).astype(np.int64)).to(device) for k, v in constants.items()}


class Formatted(Protocol):
    """What knows the format that a value has now."""

    def format(self, name: str) -> Format:
        """The format.  UncalibratedError if it is unset."""


class Layer(nn.Module):
    """Base.  ``kind`` is the file's name: the operator that it trains."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        package, _, name = cls.__module__.rpartition(".")
        if package == __name__ and not name.startswith("_"):
            cls.kind = name
        if "kind" in cls.__dict__:
            _LAYERS[cls.kind] = cls

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__()
        self.node = evolve(node, constants={})
        self.widths = [graph.values[n].width for n in node.inputs]
        self.width = graph.values[node.output].width
        self.quantised = True
        # of its inputs and its output: they are asked, never kept
        self.formats_of: tuple[tuple[Formatted, ...], Formatted] | None = None
        self._kept: tuple[Any, Constants] | None = None
        self._of_formats: tuple[Any, Constants] | None = None

    def compressed_weights(self) -> Iterator[Slot]:
        """The weights that schedules act on, for `nnac.train.schedule.Compression`."""
        return iter(())

    def held(self) -> Iterator[tuple[str, Tensor]]:
        """Its weights as the machine holds them, real, with the gradients of the quantisers: (parameter, weight).

        NotImplementedError: it has weights and does not say.
        """
        if next(self.compressed_weights(), None) is not None:
            raise NotImplementedError(self.node.path)
        return iter(())

    def meets(
        self, xs: list[Tensor], y: Tensor, before: State, lengths: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        """What each compressed weight is multiplied with, real numbers [..., cols], by the name of its slot; nothing
        for one that multiplies nothing.

        xs, y  real inputs and output [T, B, ·]      before  the states before the first frame      lengths  as `reals`
        """
        return iter(())

    def make_quantisers(self, make: MakeQuantiser) -> None:
        """Called once the float weights are in place."""

    @property
    def can_be_integer(self) -> bool:
        """Whether the plan gives every kernel integers."""
        return all(q.settings.method is not None for q in self.modules() if isinstance(q, WeightQuantiser))

    def constants(self, ins: list[Format], out: Format) -> Constants:
        """The integer constants for these formats."""
        return Constants()

    def kept_constants(self, ins: list[Format], out: Format) -> Constants:
        """`constants`, kept between calls in eval mode without gradients, until a tensor of the layer changes or moves
        to another device."""
        if self.training or torch.is_grad_enabled():
            self._kept = None
            return self.constants_of_a_step(ins, out)
        key = ([(id(t), t._version, t.device) for t in (*self.parameters(), *self.buffers())], ins, out)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.constants(ins, out)
        return self._kept[1]

    def constants_of_a_step(self, ins: list[Format], out: Format) -> Constants:
        """`constants` as training wants them at every step: what a graph alone reads may be missing."""
        return self.constants(ins, out)

    def constants_of_formats(self, ins: list[Format], out: Format, device: torch.device) -> Constants:
        """`constants` of a layer without parameters: kept until a format changes, or the device."""
        key = (ins, out, device)
        if self._of_formats is None or self._of_formats[0] != key:
            self._of_formats = key, self.constants(ins, out)
        return self._of_formats[1]

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        raise NotImplementedError

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        raise NotImplementedError

    def bound(self, node: Node) -> Node:
        """The node with what calibration chose of its attributes and states."""
        return node

    def described(self) -> str:
        """What `GraphModule.summary` says of the layer besides its formats."""
        return ""

    def lengths(self, lengths: Tensor) -> Tensor:
        """How many of its output's frames are a row's own, of a row of so many input frames."""
        return lengths

    def train(self, mode: bool = True) -> Layer:
        self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "_of_formats": None}

    def extra_repr(self) -> str:
        shape = f"{'+'.join(map(str, self.widths))} -> {self.width}"
        return f"{self.node.op} {self.node.path}, {shape}{'' if self.quantised else ', NOT QUANTISED'}"


@cache
def _files() -> frozenset[str]:
    return frozenset(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def layer_of(kind: str) -> type[Layer] | None:
    """The layer of the operator called ``kind``, importing its file only; None: it cannot be trained."""
    if kind not in _LAYERS and kind in _files():
        importlib.import_module(f"{__name__}.{kind}")
    return _LAYERS.get(kind)
