"""States that a model keeps on itself from call to call (``y, self.h = rnn(x, self.h)``), as arguments and results.

`kept` finds them by running the model; `Keeping` is the model with them taken and given back, for the exporter to read.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch.utils import _pytree

from nnac.capture.exported import Exported, as_it_was, exported

ARGUMENT = "kept"                  # of `Keeping`, beside the model's own


@frozen(eq=False)
class Kept:
    """One attribute.  module  path of the module that has it, "" for the model      spec  how its tensors are nested
    begins   its value before the first call, None for nothing      shapes  of its tensors after a call"""

    module: str
    name: str
    spec: Any
    begins: Any
    shapes: tuple[torch.Size, ...]

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}" if self.module else self.name

    def zeros(self) -> list[Tensor]:
        """What it begins with, as tensors."""
        if self.begins is not None:
            return [x.detach().clone() for x in _pytree.tree_leaves(self.begins)]
        return [torch.zeros(shape) for shape in self.shapes]


def _tensors(value: Any) -> list[Tensor] | None:
    """The tensors of a value that is nothing else."""
    leaves = _pytree.tree_leaves(value)
    return leaves if leaves and all(isinstance(x, Tensor) and not isinstance(x, nn.Parameter) for x in leaves) else None


@torch.no_grad()
def kept(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Kept, ...]:
    """The attributes that a call of the model puts tensors in, and which were nothing, or tensors, before.  Exceptions
    of the model are its own."""
    found = []
    with as_it_was(model):
        before = {name: dict(m.__dict__) for name, m in model.named_modules()}
        model(*args, **dict(kwargs))
        for module, m in model.named_modules():
            for name, value in m.__dict__.items():
                was = before[module].get(name)
                if name.startswith("_") or value is was or (leaves := _tensors(value)) is None or not (
                        was is None or _tensors(was) is not None):
                    continue
                found.append(Kept(module, name, _pytree.tree_flatten(value)[1], was,
                                  tuple(x.shape for x in leaves)))
    return tuple(found)


class Keeping(nn.Module):
    """A model with what it keeps as one more argument, a list of tensors, and one more result."""

    def __init__(self, model: nn.Module, kept: Sequence[Kept]) -> None:
        super().__init__()
        # its parameters and submodules, under the names that they have there
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        own = inspect.signature(model.forward)
        rest = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        last = [p for p in own.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = iter(kwargs.pop(ARGUMENT))
            owners = [model.get_submodule(k.module) for k in kept]
            for owner, k in zip(owners, kept, strict=True):
                setattr(owner, k.name, _pytree.tree_unflatten([next(given) for _ in k.shapes], k.spec))
            made = model.forward(*args, **kwargs)
            return made, [x for owner, k in zip(owners, kept, strict=True)
                          for x in _pytree.tree_leaves(getattr(owner, k.name))]

        forward.__signature__ = own.replace(parameters=[                           # type: ignore[attr-defined]
            *rest, inspect.Parameter(ARGUMENT, inspect.Parameter.KEYWORD_ONLY), *last])
        self.method, self.held = model.forward, (model,)
        self.forward = forward
        self.train(model.training)


def exported_keeping(model: nn.Module, held: Sequence[Kept], args: tuple[Any, ...],
                     kwargs: Mapping[str, Any]) -> tuple[Exported, tuple[Kept, ...]]:
    """(the calls, what is kept and read again).  The states' tensors are the last of the inputs and of the outputs."""
    given = [x for k in held for x in k.zeros()]
    with as_it_was(model):
        made = exported(Keeping(model, held), args, dict(kwargs) | {ARGUMENT: given})
    count = len(made.inputs) - len(given)
    names, spec = list(made.inputs)[count:], made.spec.child(0)
    users = {n.name: bool(n.users) for n in made.nodes}
    first, stay, outputs, gone = 0, list[Kept](), list[Any](), set[str]()
    results = made.outputs[len(made.outputs) - len(given):]
    for k in held:
        part = slice(first, first + len(k.shapes))
        if any(users[n] for n in names[part]):
            stay.append(k)
            outputs += results[part]
        else:
            gone.update(names[part])                   # written and never read: no state
        first += len(k.shapes)
    several = not spec.is_leaf()
    return evolve(made, outputs=(*made.outputs[: len(made.outputs) - len(given)], *outputs),
                  inputs={n: v for n, v in made.inputs.items() if n not in gone}, several=several,
                  spec=spec if several else None), tuple(stay)
