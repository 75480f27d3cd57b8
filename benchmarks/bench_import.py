"""What nnac takes of others' models as they stand, and whether it says the truth of what it takes.

Published modules in small (`tests.published`) are prepared, calibrated, saved, and compared: training module against
emulator, and against onnxruntime on ONNX of integers, every integer.  PyTorch constructs (`tests.constructs`) are read
or refused: one is silently wrong that is taken and computes something else than the model in real numbers.  A step of
an LSTM's exact integers under onnxruntime is timed beside onnxruntime's own dynamic int8.

The last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import define
from torch import nn
from torch.utils import _pytree

import nnac
from nnac import tensors
from nnac.capture import PrepareError
from nnac.executors import Subject
from nnac.train.prepare import relative, results
from tests import constructs, published
from tests.loops import Of

POLICY = """import "targets/edge.nnac"
policy mine {{
  model  {model}
  target edge
  layers ** {{ {weights}activations int8 percentile(99.99) }}
}}
"""
WEIGHTS = "weights int8 per_channel; "


@define
class Row:
    """What came of one module."""

    name: str
    said: str = ""
    compared: int = 0
    different: int = 0
    onnx_compared: int = 0
    onnx_different: int = 0
    placed: bool = False


def module(name: str, folder: Path) -> Row:
    """One published module, the whole way."""
    torch.manual_seed(0)
    how, make = published.MODULES[name]
    given, row, file = make(), Row(name), folder / "m.nnc"
    try:
        if how == "transducer":
            made: Any = nnac.prepare_transducer(**given, policy=POLICY.format(model="transducer", weights=WEIGHTS))
            example = given["example"]
            x, y = (example["encoder"][0], example["prediction"][0]) if isinstance(example, dict) else example
            steps = x.shape[made.made.features.roles.index("time")]
            made.calibrate([(x, torch.full((3,), steps), y)])
            made.save(file)
            arrays = dict(features=x.numpy())
        else:
            model, example = given
            graph = nnac.check(model, example).graph
            weights = WEIGHTS if graph is None or any(x.kernels for x in graph) else ""         # a norm has none
            made = nnac.prepare(model, POLICY.format(model="module", weights=weights), example)
            made.calibrate([example])
            made.save(file)
            arrays = {n: v.numpy() for n, v in arguments(made, example).items()}
    except PrepareError as error:
        row.said, row.placed = str(error).splitlines()[0], all(p.line for p in error.problems)
        return row
    subject = Subject.load(file)
    found = tensors.compare(subject, subject, arrays, ("torch", "emulator"))
    row.compared, row.different = found.compared, found.different
    found = tensors.compare(subject, subject, arrays, ("torch", "onnx"))
    row.onnx_compared, row.onnx_different = found.compared, found.different
    return row


def arguments(made: Any, example: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """The arrays that a saved module takes, by name."""
    from nnac.train.prepare import tensors as flat

    given = flat(made.signature, example, {})
    return {a.name: x for a, x in zip(made.captured.end.arguments, given, strict=True) if a is not None}


def silent() -> tuple[int, list[str]]:
    """(constructs tried, those that are taken and compute something else)."""
    wrong = []
    tried = {n: (m, e) for n, (m, e) in constructs.models().items()} | {n: (m, e) for n, (m, e, _) in
                                                                        constructs.refused().items()}
    for name, (make, example) in tried.items():
        torch.manual_seed(0)
        model = make()
        model.eval()
        try:
            made = nnac.prepare(model, POLICY.format(model="module", weights=WEIGHTS), example)
        except PrepareError:
            continue
        other = _pytree.tree_map(lambda v: v + 0.1 * torch.randn_like(v) if v.is_floating_point() else v, example)
        with torch.no_grad(), made.eval().real_numbers():
            pairs = zip(results(made(*other)), results(model(*other)), strict=True)
            if any(relative(a.double(), b.double()) > (3e-2 if b.dtype == torch.bfloat16 else 1e-4) for a, b in pairs):
                wrong.append(name)
    return len(tried), wrong


SIZES = 80, 320, 2                                            # features, cells, layers of the timed LSTM
STEPS, ROUNDS = 40, 15


def dynamic_int8(lstm: nn.LSTM, folder: Path) -> Any:
    """onnxruntime's own: a step of the LSTM as ONNX's float operator, then `quantize_dynamic`; (session, its feeds)."""
    import onnx
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import QuantType, quantize_dynamic

    width, cells, layers = lstm.input_size, lstm.hidden_size, lstm.num_layers
    real, states, nodes, constants, made = onnx.TensorProto.FLOAT, [], [], [], []
    order = torch.cat([torch.arange(cells) + k * cells for k in (0, 3, 1, 2)])          # ONNX's gates: i, o, f, c
    value = "x"
    for k in range(layers):
        of = {n: getattr(lstm, f"{n}_l{k}").detach()[order] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        for name, array in ((f"w{k}", of["weight_ih"]), (f"r{k}", of["weight_hh"]),
                            (f"b{k}", torch.cat([of["bias_ih"], of["bias_hh"]]))):
            constants.append(onnx.numpy_helper.from_array(array[None].numpy(), name))
        nodes.append(onnx.helper.make_node("LSTM", [value, f"w{k}", f"r{k}", f"b{k}", "", f"h{k}", f"c{k}"],
                                           [f"y{k}", f"h{k}.next", f"c{k}.next"], hidden_size=cells))
        nodes.append(onnx.helper.make_node("Squeeze", [f"y{k}", "axis"], [f"s{k}"]))
        value = f"s{k}"
        states += [onnx.helper.make_tensor_value_info(f"{n}{k}", real, [1, 1, cells]) for n in "hc"]
        made += [onnx.helper.make_tensor_value_info(f"{n}{k}.next", real, [1, 1, cells]) for n in "hc"]
    constants.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    graph = onnx.helper.make_graph(nodes, "lstm", [onnx.helper.make_tensor_value_info("x", real, [1, 1, width]),
                                                   *states],
                                   [onnx.helper.make_tensor_value_info(value, real, [1, 1, cells]), *made], constants)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10),
              folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", weight_type=QuantType.QInt8)
    kinds = {n.op_type for n in onnx.load(folder / "dynamic.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in kinds, kinds
    feeds = {n.name: np.zeros((1, 1, cells), np.float32) for n in states} | {"x": np.zeros((1, 1, width), np.float32)}
    return InferenceSession(str(folder / "dynamic.onnx"), one_thread(), providers=["CPUExecutionProvider"]), feeds


def one_thread() -> Any:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def over_dynamic(folder: Path) -> float:
    """CPU time of a step of the exact integers under onnxruntime, over that of its own dynamic int8 on the same LSTM:
    medians of rounds that alternate, one thread."""
    from nnac.onnx import model as onnx_model
    from nnac.onnx.session import Session

    torch.manual_seed(0)
    width, cells, layers = SIZES
    lstm = nn.LSTM(width, cells, layers)
    x = torch.randn(20, 1, width)
    made = nnac.prepare(Of(lambda s, x: s.rnn(x)[0], rnn=lstm), POLICY.format(model="module", weights=WEIGHTS), x)
    made.calibrate([x])
    graph = made.bind()
    step = onnx_model.trace(graph, "encoder")
    session = Session.of(onnx_model.integers(step, "encoder")).loaded
    exact = {n: np.zeros([max(1, k) for k in s.shape], np.int32) for n, s in {**step.inputs, **step.states}.items()}
    other, feeds = dynamic_int8(lstm, folder)
    draw = np.random.default_rng(0)
    frames = draw.standard_normal((STEPS, 1, 1, width)).astype(np.float32)
    codes = np.clip(np.round(frames * 30), -127, 127).astype(np.int32)
    took: dict[str, list[float]] = dict(exact=[], dynamic=[])
    for _ in range(ROUNDS):
        for name, run, given, inputs, key in (("exact", session, exact, codes, next(iter(step.inputs))),
                                              ("dynamic", other, feeds, frames, "x")):
            outputs = [o.name for o in run.get_outputs()]
            begin = time.thread_time()
            for frame in inputs:
                results_of = dict(zip(outputs, run.run(None, given | {key: frame}), strict=True))
                given |= {n: results_of[f"{n}.next"] for n in given if f"{n}.next" in results_of}
            took[name].append((time.thread_time() - begin) / STEPS)
    exact_us, dynamic_us = (1e6 * statistics.median(v) for v in took.values())
    print(f"a step of {layers} LSTMs of {cells} cells, onnxruntime, one thread: exact integers {exact_us:.0f} us, "
          f"dynamic int8 {dynamic_us:.0f} us of CPU")
    return exact_us / dynamic_us


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        ratio = over_dynamic(Path(folder))
        rows = [module(name, Path(folder)) for name in published.MODULES]
    for r in rows:
        print(f"{r.name:44} " + (f"refused{'' if r.placed else ', without a line'}: {r.said[:100]}" if r.said else
                                 f"{r.compared:,} integers, {r.different} differ; onnx {r.onnx_compared:,}, "
                                 f"{r.onnx_different}"))
    count, wrong = silent()
    if wrong:
        print("silently wrong:", ", ".join(wrong))
    taken = [r for r in rows if not r.said]
    print(json.dumps(dict(modules=len(rows), accepted=len(taken), refused=len(rows) - len(taken),
                          refused_without_line=sum(bool(r.said) and not r.placed for r in rows),
                          silent_wrong=len(wrong), constructs=count, compared_integers=sum(r.compared for r in rows),
                          different_integers=sum(r.different for r in rows),
                          onnx_compared_integers=sum(r.onnx_compared for r in rows),
                          onnx_different_integers=sum(r.onnx_different for r in rows),
                          onnx_over_ort_dynamic=round(ratio, 2))))


if __name__ == "__main__":
    main()
