"""A trained model as files of other formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnac.decode.front_end import FrontEnd
from nnac.decode.patches import Hearing
from nnac.decode.tensors import LabelEnd, TensorEnd
from nnac.errors import UserError
from nnac.files import atomic
from nnac.model.rnnt import ENCODER

if TYPE_CHECKING:
    from nnac.ir import QGraph
    from nnac.train.policy import Trained


class ExportError(UserError):
    """What writing the format wants is not installed; one line."""


def write(trained: Trained, to: str, folder: str, steps: int = 1) -> dict[str, int]:
    """Write the files; name -> bytes.  OnnxError: a layer has no such form; nothing is written then."""
    contents = tensors(trained) if to == "safetensors" else onnx_files(trained, to, steps)
    made = {}
    for name, data in contents.items():
        path = Path(folder) / name
        with atomic(path) as out:
            out.write(data)
        made[str(path)] = len(data)
    return made


def onnx_files(trained: Trained, to: str, steps: int) -> dict[str, bytes]:
    """A file for each entry, and the tokens where there are some."""
    try:
        from nnac.onnx import files, real, sherpa
    except ImportError as error:
        raise ExportError(f"ONNX is not installed ({error}): pip install 'nnac[onnx]'") from None
    front = trained.end if isinstance(trained.end, FrontEnd) else None
    graph = trained.module.bind()
    hearing = hearings(trained, graph)
    made: dict[str, bytes] = {}
    if to == "sherpa-onnx":
        if front is None:
            raise ExportError("sherpa-onnx needs features, normalisation and tokens, and this model has none: save it "
                              "with its front end (docs/models.md)")
        made = {f"{name}.onnx": m.SerializeToString() for name, m in sherpa.recogniser(graph, front, steps).items()}
    else:
        for entry, name in files.file_names(graph).items():
            count = steps if files.Ports.of(graph, entry, hearing).sequence else 1
            model = (files.exact(graph, entry, front, count, hearing) if to == "onnx"
                     else real.quantised(trained.module, entry, front, count, hearing))
            made[f"{name}.onnx"] = model.SerializeToString()
    if front is not None:
        made["tokens.txt"] = files.tokens_text(front).encode()
    return made


def hearings(trained: Trained, graph: QGraph) -> dict[str, Hearing]:
    """How frames become the vectors of inputs, by the names of these."""
    if isinstance(trained.end, FrontEnd):
        return {graph.inputs[ENCODER.name][0]: trained.end.hearing}
    return {a.name: a.hearing for a in trained.end.read} if isinstance(trained.end, (TensorEnd, LabelEnd)) else {}


def tensors(trained: Trained) -> dict[str, bytes]:
    """``model.safetensors``: every constant of every layer under ``layer.constant``, and what the graph is, as JSON in
    its metadata (docs/export.md)."""
    from safetensors.numpy import save

    graph = trained.module.bind()
    arrays: dict[str, NDArray] = {f"{n.path}.{k}": np.array(v, order="C") for n in graph.nodes
                                  for k, v in n.constants.items()}
    values: dict[str, Any] = {v.name: dict(width=v.width, bits=v.bits, rate=v.rate, scale=v.scale,
                                           zero_point=v.zero_point) for v in graph.values.values()}
    nodes = [dict(path=n.path, op=n.op, inputs=n.inputs, output=n.output, entry=n.entry,
                  attributes=dict(n.attributes.items()),
                  states=[dict(name=s.name, width=s.width, bits=s.bits, scale=s.scale) for s in n.states])
             for n in graph.nodes]
    told = {"format": "nnac-integers-1", "name": graph.name, "inputs": graph.inputs, "outputs": graph.outputs,
            "values": values, "nodes": nodes, "front_end": trained.end.to_json()}
    return {"model.safetensors": save(arrays, {k: v if isinstance(v, str) else json.dumps(v)
                                               for k, v in told.items()})}
