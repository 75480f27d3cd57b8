"""A recogniser as the three files that sherpa-onnx runs, on phones and elsewhere: the machine's integers in its floats.

    encoder.onnx   x [N, T, bins] features, h [1, N, states], c [1, N, 1]  -> encoder_out [N, T', joint], h, c
    decoder.onnx   y [N, context] the last labels, -1 where there was none -> decoder_out [N, joint]
    joiner.onnx    encoder_out [N, joint], decoder_out [N, joint]          -> logit [N, labels]

It is the layout of its LSTM transducers: all states of the encoder lie in one tensor, ``h``.  Everything is float32
outside, and every integer that passes there has at most 24 bits, so none changes.  The host keeps no state of the
prediction network, but gives the labels that it depends on again, each time: one that depends on all labels (an LSTM)
has no such form and is refused.
Source: sherpa-onnx, online transducers of ``model_type`` lstm: names, shapes and metadata.  The integers are
`nnac.onnx.files`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve
from onnx import ModelProto, TensorProto

from nnac.decode.front_end import FrontEnd
from nnac.ir import Node, QGraph
from nnac.model.rnnt import ENCODER, JOINT, PREDICTION
from nnac.onnx import files
from nnac.onnx.model import OnnxError, compute, info, model, trace
from nnac.onnx.symbol import ANY, INT32, INT64, Symbol, Tape, known
from nnac.ops import operator

WHOLE_BITS = 24                # of integers that float32 holds, all of them
NO_LABEL = -1                  # where the host has no label yet
STATES, UNUSED = "h", "c"      # what the host calls the two tensors that it keeps


def check(graph: QGraph) -> None:
    """OnnxError: why sherpa-onnx cannot run it."""
    if not files.FILES.keys() <= graph.inputs.keys():
        raise OnnxError("sherpa-onnx runs transducers: encoder, prediction network, joint; `--to onnx` writes a file "
                        "for each entry of any model")
    files.check_forward(graph, ENCODER.name)
    for node in graph.entry(PREDICTION.name):
        if heard(node) is None:
            raise OnnxError(f"{node.path}: `{node.op}` depends on all labels, and sherpa-onnx gives the prediction "
                            "network only the last few: train one without recurrence (`stateless=2` in the policy's "
                            "`model conformer`), or write a host for `--to onnx`, whose files pass its states")
    for node in graph.entry(ENCODER.name):
        for s in node.states:
            # a ring's count stays below twice its slots, whatever room it has
            if s.bits > WHOLE_BITS and not (operator(node.op).remembers and s.width == 1):
                raise OnnxError(f"{node.path}: its state has {s.bits} bits, and sherpa-onnx keeps states in float32")


def context(graph: QGraph) -> int:
    """Labels that the prediction network depends on, of a graph that `check` lets pass."""
    return 1 + sum(heard(n) or 0 for n in graph.entry(PREDICTION.name))


def heard(node: Node) -> int | None:
    """Labels before the last one that a layer depends on; None: all of them."""
    return operator(node.op).heard(dict(node.attributes.items()))


def recogniser(graph: QGraph, front: FrontEnd, steps: int = 1) -> dict[str, ModelProto]:
    """File -> model; ``steps`` of the encoder a call.  OnnxError: `check`'s, a layer without a form in ONNX, or an
    encoder whose steps read frames that overlap."""
    if front.hears:
        raise OnnxError("the encoder begins with convolutions, whose frames overlap from call to call: write a host "
                        "for `--to onnx`, whose metadata say which frames a call reads")
    check(graph)
    return {files.FILES[ENCODER.name]: encoder(graph, front, steps),
            files.FILES[PREDICTION.name]: decoder(graph, front), files.FILES[JOINT.name]: joiner(graph, front)}


def encoder(graph: QGraph, front: FrontEnd, steps: int) -> ModelProto:
    """``x``, ``h``, ``c`` -> ``encoder_out``, ``next_h``, ``next_c``."""
    step = trace(graph, ENCODER.name, steps, inside="inside.")
    tape, ports = step.tape, files.Ports.of(graph, ENCODER.name)
    (value, x), = step.inputs.items()
    widths = {name: s.shape[1] for name, s in step.states.items()}
    total = max(1, sum(widths.values()))
    given = tape.input(STATES, (1, ANY, total), 0, 0)
    taken = [files.entered(tape, graph.values[value], x, ports, front), info(STATES, given, TensorProto.FLOAT),
             info(UNUSED, evolve(given, shape=(1, ANY, 1)), TensorProto.FLOAT)]
    with tape.before():
        whole = tape.write("Cast", [tape.write("Squeeze", [STATES, tape.constant(np.array([0]))])], to=INT32)
        at = 0
        for name, width in widths.items():
            ends = [tape.constant(np.array([v])) for v in (at, at + width, 1)]
            tape.write("Slice", [whole, *ends], name)
            at += width
    (out, y), = step.outputs.items()
    made = [real(tape, y.swapaxes(0, 1), ports.outputs[out])]
    after = [step.after[name].as_type(INT32) for name in widths]
    whole = tape.write("Concat", after, axis=1) if after else STATES
    if after:
        whole = tape.write("Unsqueeze", [tape.write("Cast", [whole], to=TensorProto.FLOAT),
                                         tape.constant(np.array([0]))])
    tape.write("Identity", [whole], f"next_{STATES}")
    tape.write("Identity", [UNUSED], f"next_{UNUSED}")
    made += [info(f"next_{STATES}", given, TensorProto.FLOAT),
             info(f"next_{UNUSED}", evolve(given, shape=(1, ANY, 1)), TensorProto.FLOAT)]
    frames = steps * graph.rate(ENCODER.name, value)
    facts = dict(model_type="lstm", model_author="nnac", T=frames, decode_chunk_len=frames, num_encoder_layers=1,
                 d_model=total, rnn_hidden_size=1)
    return model(tape, f"{graph.name}.encoder", taken, made, told(graph, ENCODER.name, front, steps, facts))


def decoder(graph: QGraph, front: FrontEnd) -> ModelProto:
    """``y`` -> ``decoder_out``: from zero states, label after label; one that is not there leaves the states at
    zero."""
    count, tape = context(graph), Tape()
    value, = graph.inputs[PREDICTION.name]
    out, = graph.outputs[PREDICTION.name]
    labels = tape.input("labels", (count, ANY, 1), NO_LABEL, (1 << 31) - 1)
    with tape.before():
        raw = tape.write("Transpose", [tape.write("Cast", ["y"], to=INT32)], perm=[1, 0])
        tape.write("Unsqueeze", [raw, tape.constant(np.array([-1]))], labels.name)
    state = {s.name: labels[0] * 0 + known(tape, np.zeros(s.width)) for n in graph.entry(PREDICTION.name)
             for s in n.states}
    values: dict[str, Symbol] = {}
    for i in range(count):
        label = labels[i:i + 1]
        values = compute(graph, PREDICTION.name, {value: label.clip(0, label.high)}, state, tape)
        there = label[0] >= 0
        state = {name: symbol * there for name, symbol in state.items()}
    made = [real(tape, values[out][0], "decoder_out")]
    facts = dict(vocab_size=front.tokens.count, context_size=count)
    return model(tape, f"{graph.name}.decoder", [info("y", evolve(labels, shape=(ANY, count)), INT64)], made,
                 told(graph, PREDICTION.name, front, 1, facts))


def joiner(graph: QGraph, front: FrontEnd) -> ModelProto:
    """``encoder_out``, ``decoder_out`` -> ``logit``."""
    step = trace(graph, JOINT.name, 1, inside="inside.")
    tape, ports = step.tape, files.Ports.of(graph, JOINT.name)
    taken = []
    with tape.before():
        for value, symbol in step.inputs.items():
            name = ports.inputs[value]
            whole = tape.write("Cast", [name], to=INT32)
            tape.write("Unsqueeze", [whole, tape.constant(np.array([0]))], symbol.name)
            taken.append(info(name, evolve(symbol, shape=symbol.shape[1:]), TensorProto.FLOAT))
    (out, y), = step.outputs.items()
    made = [files.as_real(tape, y[0], graph.values[out], ports.outputs[out])]
    facts = dict(joiner_dim=next(iter(step.inputs.values())).shape[-1])
    return model(tape, f"{graph.name}.joiner", taken, made, told(graph, JOINT.name, front, 1, facts))


def real(tape: Tape, symbol: Symbol, name: str) -> Any:
    """The integers themselves, as float32."""
    tape.write("Cast", [symbol.as_type(INT32)], name, to=TensorProto.FLOAT)
    return info(name, symbol, TensorProto.FLOAT)


def told(graph: QGraph, entry: str, front: FrontEnd, steps: int, more: Mapping[str, Any]) -> dict[str, str]:
    """Metadata: the host's, and nnac's own under the names of `files.metadata`, without what does not hold here."""
    own = {k: v for k, v in files.metadata(graph, entry, front, steps).items() if k not in ("states", "context_size")}
    return files.texts({**own, "arithmetic": "exact", **more})
