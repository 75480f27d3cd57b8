"""The same files in real numbers: the float network under its quantisers, as QuantizeLinear and DequantizeLinear.

The layers' own real-number reading (`nnac.train.ops.Layer.reals`) is traced by PyTorch; weights stand in it at the
places that their quantisers gave them, and what passes between layers goes through fake quantisation with the scales
of calibration, which PyTorch exports as pairs of QuantizeLinear and DequantizeLinear.  Values of 16 bits pass as they
are: their steps are finer than a fake quantisation of 8 bits could show.
A runtime with integer kernels may fuse such a graph, each in its own way: its results are near the machine's, not
equal.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nnac import arith
from nnac.decode.front_end import FrontEnd
from nnac.decode.patches import Hearing
from nnac.ir import Value
from nnac.onnx.files import Ports, check_forward, metadata, texts
from nnac.onnx.model import AFTER, INDEX_BITS, OnnxError
from nnac.train.module import GraphModule
from nnac.train.ops import Layer


class RealStep(nn.Module):
    """One call of an entry on real numbers, quantised as the plan says.  Arrays as `nnac.onnx.files` arranges them."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, module: GraphModule, entry: str, front: FrontEnd | None,
                 hearing: Mapping[str, Hearing] | None = None) -> None:
        super().__init__()
        self.graph, self.entry, self.ports = module.bind(), entry, Ports.of(module.graph, entry, hearing)
        self.layers: list[Layer] = [module.layer(n.path) for n in self.graph.entry(entry)]
        self.held = nn.ModuleList(self.layers)
        self.states = [s.name for n in self.graph.entry(entry) for s in n.states]
        self.front = front
        if front is not None:
            self.register_buffer("mean", torch.from_numpy(front.normalisation.mean))
            self.register_buffer("deviation", torch.from_numpy(front.normalisation.deviation))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        names = self.graph.inputs[self.entry]
        values = {n: self._entered(x, self.graph.values[n]) for n, x in zip(names, given, strict=False)}
        state = dict(zip(self.states, given[len(names):], strict=True))
        for node, layer in zip(self.graph.entry(self.entry), self.layers, strict=True):
            made = layer.reals([values[n] for n in node.inputs], state, None)
            values[node.output] = _fake(made, self.graph.values[node.output])
        outputs = [values[n] for n in self.graph.outputs[self.entry]]
        return (*(y.transpose(0, 1) if self.ports.sequence else y[0] for y in outputs),
                *(state[n] for n in self.states))

    def _entered(self, x: Tensor, value: Value) -> Tensor:
        if value.bits == INDEX_BITS:
            x = x[..., None] if self.ports.sequence else x
        elif self.front is not None and value.name in self.ports.outer:
            x = (x - self.mean) / self.deviation
        if value.name in self.ports.hearing:
            places = torch.from_numpy(self.ports.hearing[value.name].places(x.shape[1]))
            taken = x.flatten(1)[:, places.clamp_min(0).flatten()] * (places >= 0).flatten()
            x = taken.reshape(x.shape[0], *places.shape)
        x = x.transpose(0, 1) if self.ports.sequence else x[None]
        return x if value.bits == INDEX_BITS else _fake(x, value)


def _fake(x: Tensor, value: Value) -> Tensor:
    """Rounded as integers of the value's format would round it."""
    if value.bits > 8 or value.scale is None:
        return x
    return torch.fake_quantize_per_tensor_affine(x, value.scale, value.zero_point, *arith.limits(value.bits))


def quantised(module: GraphModule, entry: str, front: FrontEnd | None = None, steps: int = 1,
              hearing: Mapping[str, Hearing] | None = None) -> ModelProto:
    """The file of one entry in real numbers.  OnnxError: PyTorch has no ONNX form of a layer."""
    module = compressed(module)
    step = RealStep(module, entry, front, hearing).eval()
    graph, ports = step.graph, step.ports
    check_forward(graph, entry)
    given = [_example(graph.values[v], ports, steps * graph.rate(entry, v)) for v in graph.inputs[entry]]
    widths = {s.name: s.width for n in graph.entry(entry) for s in n.states}
    given += [torch.zeros(1, widths[s]) for s in step.states]
    names = [*ports.inputs.values(), *step.states]
    made = [*ports.outputs.values(), *(s + AFTER for s in step.states)]
    out = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            export: Any = torch.onnx.export              # its types say a name, its code takes a file as well
            export(step, tuple(given), out, dynamo=False, opset_version=17, input_names=names,
                   output_names=made, dynamic_axes={n: {0: "N"} for n in [*names, *made]})
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise OnnxError(f"the entry `{entry}` has no form in ONNX's real numbers: "
                        f"{str(error).splitlines()[0][:200]}") from None
    model = onnx.load_from_string(out.getvalue())
    _store_codes(model, dict(_rows(module, step)))
    facts = metadata(graph, entry, front, steps, ports.hearing) | {
        "arithmetic": "real numbers, QuantizeLinear and DequantizeLinear"}
    helper.set_model_props(model, texts(facts))
    return model


def _example(value: Value, ports: Ports, length: int) -> Tensor:
    """Zeros in the shape of an input."""
    if value.bits == INDEX_BITS:
        return torch.zeros((1, length) if ports.sequence else (1, 1), dtype=torch.int64)
    width = ports.hearing[value.name].width if value.name in ports.hearing else value.width
    return torch.zeros(*((1, ports.frames(value.name, length)) if ports.sequence else (1,)), width)


def compressed(module: GraphModule) -> GraphModule:
    """A copy whose weights are what their quantisers make of them."""
    made = copy.deepcopy(module).eval()
    with torch.no_grad():
        for layer in made.layers():
            for slot in layer.compressed_weights():
                codes, scale = slot.quantiser(slot.read())
                slot.write(codes * scale[:, None])
    return made


def _rows(module: GraphModule, step: RealStep) -> Iterator[tuple[bytes, tuple[NDArray, float]]]:
    """A row of a compressed weight, as bytes -> (its codes, its scale)."""
    for node in step.graph.entry(step.entry):
        kernels = [np.asarray(v) for v in node.constants.values() if v.ndim == 2]
        for parameter in module.layer(node.path).parameters():
            weight = parameter.detach().numpy()
            for codes in kernels:
                if codes.shape != weight.shape or codes.dtype != np.int8:
                    continue
                wide = codes.astype(np.float64)
                scale = (wide * weight).sum(1) / np.maximum(1, (wide * wide).sum(1))
                near = np.abs(wide * scale[:, None] - weight).max(1) <= 1e-5 * np.abs(weight).max(1)
                for r in np.flatnonzero(near & (scale > 0)):
                    yield weight[r].tobytes(), (codes[r], float(scale[r]))


def _store_codes(model: ModelProto, rows: dict[bytes, tuple[NDArray, float]]) -> None:
    """Weights whose rows (or columns) are all known become codes of 8 bits and a DequantizeLinear."""
    nodes, kept = [], []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        found = _codes(value, rows) if tensor.data_type == TensorProto.FLOAT and value.ndim >= 2 else None
        if found is None:
            kept.append(tensor)
            continue
        codes, scales, axis = found
        names = [f"{tensor.name}.{part}" for part in ("codes", "scale")]
        kept += [numpy_helper.from_array(a, n) for a, n in zip((codes, scales), names, strict=True)]
        nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _codes(value: NDArray, rows: dict[bytes, tuple[NDArray, float]]) -> tuple[NDArray, NDArray, int] | None:
    """(codes of the same shape, scales, axis) of a weight; None if a row is not known."""
    for axis in (value.ndim - 2, value.ndim - 1):
        lines = np.ascontiguousarray(np.moveaxis(value, axis, -2))
        if any(n != 1 for n in lines.shape[:-2]):
            return None
        found = [rows.get(line.tobytes()) for line in lines.reshape(lines.shape[-2:])]
        known = [f for f in found if f is not None]
        if len(known) == len(found):
            codes = np.stack([c for c, _ in known]).reshape(lines.shape)
            return (np.ascontiguousarray(np.moveaxis(codes, -2, axis)), np.array([s for _, s in known], np.float32),
                    axis)
    return None
