"""The float networks of a map: PyTorch modules whose parameters have the toolkit's own names, with its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.nn import functional

from nnac.imports.files import ImportError_
from nnac.imports.maps import Map, Step

Run = Callable[[Tensor], Tensor]


class Group(nn.Module):
    """A name that contains modules.  ``common``: what all names of it begin with, and its paths leave out."""

    common = ""


class Chain(Group):
    """Steps over a sequence [B, T, C] (labels [B, U]): its modules lie under the names of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.takes = 0                             # width of what it reads

    def forward(self, x: Tensor) -> Tensor:
        for run in self.runs:
            x = run(x)
        return x


class Meeting(Group):
    """The joint: two sequences [B, T, C], [B, U, C] -> [B, T, U, labels]."""

    def __init__(self, combine: str) -> None:
        super().__init__()
        self.combine = combine
        self.sides: tuple[list[Run], list[Run]] = ([], [])
        self.runs: list[Run] = []

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        for run in self.sides[0]:
            f = run(f)
        for run in self.sides[1]:
            g = run(g)
        f, g = f.unsqueeze(2), g.unsqueeze(1)
        if self.combine == "concatenate":
            y = torch.cat([f.expand(-1, -1, g.shape[2], -1), g.expand(-1, f.shape[1], -1, -1)], -1)
        else:
            y = f + g if self.combine == "add" else f * g
        for run in self.runs:
            y = run(y)
        return y


@define
class Builder:
    """Makes modules of steps, and remembers which tensors they took."""

    tensors: Mapping[str, Tensor]
    options: Mapping[str, float]
    taken: set[str] = field(factory=set)
    wrong: list[str] = field(factory=list)

    def steps(self, root: Group, steps: tuple[Step, ...], width: int, i: int | None = None,
              after: int = 1) -> tuple[list[Run], int]:
        """(what to do in turn, the width of what comes out).  ``width`` 0: what the first layer takes."""
        runs: list[Run] = []
        for step in steps:
            if (step.only_if and self.name(step.only_if, i) not in self.tensors) or (
                    step.unless and self.name(step.unless, i) in self.tensors):
                continue
            if step.word == "each":
                by, k = int(step.more.get("by", 1)), 0
                while any(n.startswith(f"{self.name(step.value, k)}.") for n in self.tensors):
                    made, width = self.steps(root, step.more["steps"], width, k)
                    runs, k = runs + made, k + by
                if k == 0:
                    self.wrong.append(f"lacks {step.value}")
            elif step.word == "residual":
                inner, width = self.steps(root, step.value, width, i)
                runs.append(_added(inner))
            elif step.word == "stack":
                count = int(self.options[step.value] if isinstance(step.value, str) else step.value)
                if count > 1:
                    runs.append(_stacked(count))
                    width *= count
            elif step.word == "activation":
                runs.append(_ACTIVATIONS[step.value])
            else:
                run, width = getattr(self, f"_{step.word}")(root, self.name(step.value, i), step.more, width)
                runs.append(run)
        return runs, width

    @staticmethod
    def name(pattern: str, i: int | None) -> str:
        return pattern if i is None else pattern.replace("{i}", str(i)).replace("{next}", str(i + 1))

    def tensor(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """A tensor of the checkpoint; of zeros, with a problem remembered, where it is not there or has another
        shape."""
        found = self.tensors.get(name)
        if found is None:
            self.wrong.append(f"lacks {name}")
        elif found.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, found.shape, strict=True)):
            wanted = ", ".join("*" if n is None else str(n) for n in shape)
            self.wrong.append(f"{name} is {list(found.shape)}, not [{wanted}]")
        else:
            self.taken.add(name)
            return found
        return torch.zeros([n or 1 for n in shape])

    def put(self, root: Group, name: str, module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
        """A module under its name, with its tensors."""
        with torch.no_grad():
            for n, p in module.named_parameters():
                if n in values and values[n].shape == p.shape:
                    p.copy_(values[n])
        *groups, last = name.removeprefix(f"{root.common}.").split(".")
        where = root
        for g in groups:
            if g not in where._modules:
                where.add_module(g, Group())
            where = where._modules[g]            # type: ignore[assignment]
        where.add_module(last, module)
        return module

    def _recurrent(self, root: Group, name: str, width: int, kind: type[nn.LSTM] | type[nn.GRU],
                   gates: int) -> tuple[Run, int]:
        layers = 0
        while f"{name}.weight_ih_l{layers}" in self.tensors:
            layers += 1
        first = self.tensor(f"{name}.weight_ih_l0", (None, width or None))
        both = f"{name}.weight_ih_l0_reverse" in self.tensors
        cells, size = first.shape[0] // gates, first.shape[1]
        project = self.tensors[f"{name}.weight_hr_l0"].shape[0] if f"{name}.weight_hr_l0" in self.tensors else 0
        more = dict(proj_size=project) if project else {}
        made = kind(size, max(1, cells), max(1, layers), batch_first=True, bidirectional=both,
                    bias=f"{name}.bias_ih_l0" in self.tensors, **more)
        values = {n: self.tensor(f"{name}.{n}", tuple(p.shape)) for n, p in made.named_parameters()}
        self.put(root, name, made, values)
        return (lambda x: made(x)[0]), (project or cells) * (2 if both else 1)

    def _lstm(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        return self._recurrent(root, name, width, nn.LSTM, 4)

    def _gru(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        return self._recurrent(root, name, width, nn.GRU, 3)

    def _rnn(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        rows, cells = self.tensor(f"{name}.weight_hh_l0", (None, None)).shape
        is_gru = rows == 3 * cells and f"{name}.weight_hr_l0" not in self.tensors
        return (self._gru if is_gru else self._lstm)(root, name, more, width)

    def _gates(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        if f"{name}.g_norm.weight" in self.tensors:
            self.wrong.append(f"{name}: an LSTM whose gates have layer norm in common has no integer operator")
        first = self.tensor(f"{name}.x2g.weight", (None, width or None))
        rows, size = first.shape
        cells = max(1, rows // 4)
        second = self.tensor(f"{name}.p2g.weight", (4 * cells, cells))
        bias = self.tensor(f"{name}.x2g.bias", (rows,)) if f"{name}.x2g.bias" in self.tensors else None
        made = nn.LSTM(size, cells, batch_first=True, bias=bias is not None)
        values = dict(weight_ih_l0=first, weight_hh_l0=second)
        if bias is not None:
            values |= dict(bias_ih_l0=bias, bias_hh_l0=torch.zeros_like(bias))
        self.put(root, name, made, values)
        return (lambda x: made(x)[0]), cells

    def _plain(self, root: Group, name: str, made: nn.Module) -> Run:
        values = {n: self.tensor(f"{name}.{n}", tuple(p.shape)) for n, p in made.named_parameters()}
        return self.put(root, name, made, values)

    def _linear(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        rows, columns = self.tensor(f"{name}.weight", (None, width or None)).shape
        return self._plain(root, name, nn.Linear(columns, rows, bias=f"{name}.bias" in self.tensors)), rows

    def _norm(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        size, = self.tensor(f"{name}.weight", (width or None,)).shape
        return self._plain(root, name, nn.LayerNorm(size, float(more.get("epsilon", 1e-5)))), size

    def _embedding(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        rows, columns = self.tensor(f"{name}.weight", (None, None)).shape
        return self._plain(root, name, nn.Embedding(rows, columns)), columns

    def _conv(self, root: Group, name: str, more: Mapping[str, Any], width: int) -> tuple[Run, int]:
        weight = self.tensor(f"{name}.weight", (None, None, None))
        rows, own, taps = weight.shape
        stride = int(more.get("stride", 1))
        if not width or width % own or rows % (width // own):
            self.wrong.append(f"{name}.weight is {list(weight.shape)} for vectors of {width}")
            return (lambda x: x), rows
        made = nn.Conv1d(width, rows, taps, stride, groups=width // own, bias=f"{name}.bias" in self.tensors)
        run = self._plain(root, name, made)
        return (lambda x: run(functional.pad(x.transpose(1, 2), (taps - stride, 0))).transpose(1, 2)), rows


def _added(inner: list[Run]) -> Run:
    def run(x: Tensor) -> Tensor:
        y = x
        for each in inner:
            y = each(y)
        return x + y

    return run


def _stacked(count: int) -> Run:
    def run(x: Tensor) -> Tensor:
        x = x[:, : x.shape[1] // count * count] if x.shape[1] % count else x
        return x.reshape(x.shape[0], -1, count * x.shape[2])

    return run


_ACTIVATIONS: dict[str, Run] = dict(tanh=torch.tanh, relu=torch.relu, leaky_relu=functional.leaky_relu,
                                    silu=functional.silu)


def networks(found: Map, tensors: Mapping[str, Tensor], options: Mapping[str, float] | None = None,
             outside: tuple[str, ...] = ()) -> dict[str, nn.Module]:
    """encoder, prediction and joint of a checkpoint.  ImportError_: everything that does not fit.

    options  for those of the map      outside  tensors under these names stay on the host: they are not read
    """
    given = dict(options or {})
    if odd := [n for n in given if n not in found.options]:
        raise ImportError_(f"{found.title} has no option `{odd[0]}` (it has: {', '.join(found.options) or 'none'})")
    made = Builder(tensors, dict(found.options) | given)
    encoder, prediction, joint = Chain(), Chain(), Meeting(found.combine)
    for part, steps in ((encoder, found.encoder), (prediction, found.prediction),
                        (joint, (*found.joint_encoder, *found.joint_prediction, *found.after))):
        firsts = {n.partition(".")[0] for n in _named(steps, tensors)}
        part.common = firsts.pop() if len(firsts) == 1 else ""
    width = _first_width(made, found.encoder)
    first = next((s for s in found.encoder if not s.only_if or s.only_if in tensors), found.encoder[0])
    if first.word == "stack":
        width //= max(1, int(made.options[first.value] if isinstance(first.value, str) else first.value))
    encoder.takes = width
    encoder.runs, frames = made.steps(encoder, found.encoder, width)
    prediction.runs, labels = made.steps(prediction, found.prediction, 0)
    left, frames = made.steps(joint, found.joint_encoder, frames)
    right, labels = made.steps(joint, found.joint_prediction, labels)
    joint.sides = (left, right)
    if found.combine != "concatenate" and frames != labels:
        made.wrong.append(f"the joint meets vectors of {frames} and {labels}")
    joint.runs, _ = made.steps(joint, found.after, frames + labels if found.combine == "concatenate" else frames)
    left_over = [n for n in tensors if n not in made.taken and not any(fnmatchcase(n, p) for p in found.ignore)
                 and not any(n == o or n.startswith(f"{o}.") for o in outside)]
    if left_over:
        shown = ", ".join(left_over[:6]) + (f" and {len(left_over) - 6} more" if len(left_over) > 6 else "")
        made.wrong.append(f"{shown}: no layer of this map reads {'it' if len(left_over) == 1 else 'them'}")
    if made.wrong:
        raise ImportError_(f"the checkpoint is not {found.title}: {'; '.join(dict.fromkeys(made.wrong[:8]))}")
    return dict(encoder=encoder.eval(), prediction=prediction.eval(), joint=joint.eval())


def _named(steps: tuple[Step, ...], tensors: Mapping[str, Tensor]) -> list[str]:
    """What the steps name of what is there."""
    out: list[str] = []
    for step in steps:
        if step.word in ("residual", "each"):
            out += _named(step.value if step.word == "residual" else step.more["steps"], tensors)
        elif step.word not in ("stack", "activation") and (not step.only_if or step.only_if in tensors):
            out.append(step.value)
    return out


def _first_width(made: Builder, steps: tuple[Step, ...]) -> int:
    """What the first layer of the encoder takes; 0 where it says so itself."""
    for step in steps:
        if step.word in ("lstm", "gru", "rnn"):
            found = made.tensors.get(f"{step.value}.weight_ih_l0")
            return 0 if found is None else int(found.shape[1])
        if step.word == "linear" and f"{step.value}.weight" in made.tensors:
            return int(made.tensors[f"{step.value}.weight"].shape[1])
        if step.word == "each":
            return _first_width(made, tuple(_numbered(s, 0) for s in step.more["steps"]))
    return 0


def _numbered(step: Step, i: int) -> Step:
    from attrs import evolve

    return evolve(step, value=Builder.name(step.value, i)) if isinstance(step.value, str) else step
