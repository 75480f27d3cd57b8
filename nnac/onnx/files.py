"""A recogniser as three ONNX files in the layout of sherpa-onnx: encoder, decoder, joiner, states in and out.

    encoder.onnx   x [N, T, bins] log-mel features, states -> encoder_out [N, T', joint], states
    decoder.onnx   y [N, 1] the last label, states         -> decoder_out [N, joint], states
    joiner.onnx    encoder_out [N, joint], decoder_out     -> logit [N, labels], and its integers

Batch first, floats at the outer borders alone: features are normalised and quantised inside as `FrontEnd` and
`arith.quantise` do it, logits leave as real numbers.  What passes between the files, states included, are the
machine's integers in int32.  An encoder that begins with convolutions takes as many frames as its steps read (T), and
is given those that overlap again in the next call, `decode_chunk_len` of them later.  A model of another family becomes
a file for each of its entries, which bear the names of entries and values.  Metadata of every file: what a host needs
to know (`metadata`).
Source: the layout is that of sherpa-onnx's streaming transducers; our choice where it says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from nnac import arith
from nnac.decode.front_end import FrontEnd
from nnac.decode.patches import Hearing
from nnac.ir import QGraph, Value
from nnac.model.rnnt import ENCODER, JOINT, PREDICTION
from nnac.onnx.model import AFTER, INDEX_BITS, OnnxError, info, model, named, trace
from nnac.onnx.symbol import ANY, INT32, INT64, Symbol, Tape
from nnac.speech.tokens import BLANK

# what sherpa-onnx calls entries, and what goes in and out of them
FILES = {ENCODER.name: "encoder", PREDICTION.name: "decoder", JOINT.name: "joiner"}
NAMES = {(ENCODER.name, "in"): ("x",), (ENCODER.name, "out"): ("encoder_out",),
         (PREDICTION.name, "in"): ("y",), (PREDICTION.name, "out"): ("decoder_out",),
         (JOINT.name, "in"): ("encoder_out", "decoder_out"), (JOINT.name, "out"): ("logit",)}
BLANK_PIECE = "<blk>"


@frozen(eq=False)
class Ports:
    """How one entry's values are called in its file.

    outer     inputs that come from the world: features, labels      between  inputs that are another entry's outputs
    sequence  whether arrays have an axis of time      hearing   of inputs: how frames become their vectors, where they
    are others
    """

    entry: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    outer: frozenset[str]
    between: frozenset[str]
    sequence: bool
    hearing: Mapping[str, Hearing]

    @classmethod
    def of(cls, graph: QGraph, entry: str, hearing: Mapping[str, Hearing] | None = None) -> Ports:
        transducer = FILES.keys() <= graph.inputs.keys()
        given, made = graph.inputs[entry], graph.outputs[entry]
        names = dict(zip(given, NAMES[entry, "in"], strict=True)) if transducer and entry in FILES else {}
        out = dict(zip(made, NAMES[entry, "out"], strict=True)) if transducer and entry in FILES else {}
        produced = {v for other in graph.outputs for v in graph.outputs[other]}
        read = {v for other, values in graph.inputs.items() if other != entry for v in values}
        heard = {v: h for v, h in (hearing or {}).items() if v in given and h.levels}
        long = (any(e.frames for e in graph.entries if e.name == entry) or bool(heard)
                or any(graph.rate(entry, v) > 1 for v in given))
        return cls(entry, {v: names.get(v, v) for v in given}, {v: out.get(v, v) for v in made},
                   frozenset(v for v in given if v not in produced), frozenset(v for v in made if v in read), long,
                   heard)

    def frames(self, value: str, vectors: int) -> int:
        """Frames of an input that so many vectors of it are made of."""
        return self.hearing[value].read(vectors) if value in self.hearing else vectors


def file_names(graph: QGraph) -> dict[str, str]:
    """Entry -> the name of its file, without the ending."""
    transducer = FILES.keys() <= graph.inputs.keys()
    return {e: FILES[e] if transducer and e in FILES else e for e in graph.inputs}


def exact(graph: QGraph, entry: str, front: FrontEnd | None = None, steps: int = 1,
          hearing: Mapping[str, Hearing] | None = None) -> ModelProto:
    """The file of one entry, whose integers are the machine's.  ``steps`` of it a call.  ``hearing``: as `Ports` has
    it.

    OnnxError: a layer has no form in ONNX, or the entry hears its sequence from the end as well: such a file would be
    of one length.
    """
    check_forward(graph, entry)
    ports, step = Ports.of(graph, entry, hearing), trace(graph, entry, steps, inside="inside.")
    tape, taken, made = step.tape, [], []
    for value, symbol in step.inputs.items():
        taken.append(entered(tape, graph.values[value], symbol, ports, front))
    for name, symbol in step.states.items():
        taken.append(info(name, symbol))
    for value, symbol in step.outputs.items():
        name = ports.outputs[value]
        arranged = _arranged(symbol, ports.sequence)
        if value in ports.between:
            made.append(named(tape, arranged, name))
        else:
            made += [as_real(tape, arranged, graph.values[value], name), named(tape, arranged, f"{name}_integers")]
    made += [named(tape, symbol, name + AFTER) for name, symbol in step.after.items()]
    facts = metadata(graph, entry, front, steps, ports.hearing) | {"arithmetic": "exact"}
    return model(tape, f"{graph.name}.{entry}", taken, made, texts(facts))


def check_forward(graph: QGraph, entry: str) -> None:
    """OnnxError unless the entry can be computed step by step."""
    if graph.bidirectional(entry):
        raise OnnxError(f"the entry `{entry}` hears its sequence from the end as well: only what can be computed step "
                        f"by step is exported")


def texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as ONNX keeps it: texts as they are, all else as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def metadata(graph: QGraph, entry: str, front: FrontEnd | None, steps: int,
             hearing: Mapping[str, Hearing] | None = None) -> dict[str, Any]:
    """What a host needs: sizes under sherpa-onnx's names, scales of what leaves as integers, features, and the states
    with the names under which they come back, and how far those that count may go.  Of convolutions: the frames of
    zeros around an utterance, and what such a frame is before it is normalised."""
    states = {s.name: s.name + AFTER for n in graph.entry(entry) for s in n.states}
    out = {v: graph.values[v].scale for v in graph.outputs[entry]}
    rate = max((graph.rate(entry, v) for v in graph.inputs[entry]), default=1)
    facts: dict[str, Any] = {"model_type": f"nnac-{graph.name}", "version": "1", "entry": entry, "T": steps * rate,
                             "decode_chunk_len": steps * rate, "context_size": 1, "states": states, "scales": out}
    if most := {s.name: s.most for n in graph.entry(entry) for s in n.states if s.most is not None}:
        facts["most"] = most
    for value, h in (hearing or {}).items():
        vectors = steps * graph.rate(entry, value)
        zero = [0.0] * h.width if front is None else front.normalisation.mean.tolist()
        facts |= {"T": h.read(vectors), "decode_chunk_len": h.frames(vectors), "zeros_before": h.before,
                  "zeros_behind": h.behind, "zero": zero}
    if front is not None:
        facts |= {"vocab_size": front.tokens.count, "blank_id": BLANK, "sample_rate": front.features.rate,
                  "features": front.features.to_json()}
    return facts


def entered(tape: Tape, value: Value, symbol: Symbol, ports: Ports, front: FrontEnd | None) -> Any:
    """An input of the file whose integers become ``symbol``; what ONNX says of it.

    The traced nodes read the symbol by its name, so what leads to it is written before them.
    """
    name, outside = ports.inputs[value.name], value.name in ports.outer
    shape: tuple[int, ...] = (ANY, *((symbol.shape[0],) if ports.sequence else ()), symbol.shape[2])
    with tape.before():
        if outside and value.bits == INDEX_BITS:
            shape, type = shape[:-1] if ports.sequence else shape, INT64
            raw = tape.write("Cast", [name], to=INT32)
        elif outside:
            type = TensorProto.FLOAT
            raw = _quantised(tape, name, value, front)
            if value.name in ports.hearing:
                hearing = ports.hearing[value.name]
                frames = hearing.read(symbol.shape[0])
                shape = (ANY, frames, hearing.width)
                raw = _patches(tape, raw, hearing.places(frames), frames * hearing.width, value.zero_point)
        else:
            type, raw = INT32, tape.write("Identity", [name])
        raw = _time_first(tape, raw, ports.sequence, value.bits == INDEX_BITS and ports.sequence)
        tape.write("Identity", [raw], symbol.name)
    return info(name, evolve(symbol, shape=shape), type)


def _patches(tape: Tape, name: str, places: NDArray, count: int, zero: int) -> str:
    """[N, frames, width] integers, ``count`` of each, as patches [N, vectors, elements]; ``zero``: of no frame."""
    flat = tape.write("Reshape", [name, tape.constant(np.array([0, -1]))])
    if (places < 0).any():
        ends, what = tape.constant(np.array([0, 0, 0, 1])), tape.constant(np.array(zero, np.int32))
        flat = tape.write("Pad", [flat, ends, what])
    taken = tape.write("Gather", [flat, tape.constant(np.where(places < 0, count, places).ravel())], axis=1)
    return tape.write("Reshape", [taken, tape.constant(np.array([0, *places.shape]))])


def _time_first(tape: Tape, name: str, sequence: bool, labels: bool) -> str:
    """[N, T, C] as [T, N, C]; [N, C] as [1, N, C]."""
    if labels:
        name = tape.write("Unsqueeze", [name, tape.constant(np.array([-1]))])
    if sequence:
        return tape.write("Transpose", [name], perm=[1, 0, 2])
    return tape.write("Unsqueeze", [name, tape.constant(np.array([0]))])


def _arranged(symbol: Symbol, sequence: bool) -> Symbol:
    """[T, N, C] as [N, T, C], or [1, N, C] as [N, C]."""
    return symbol.swapaxes(0, 1) if sequence else symbol[0]


def _quantised(tape: Tape, name: str, value: Value, front: FrontEnd | None) -> str:
    """`Normalisation.apply` in float32 and `arith.quantise` in float64, operation by operation."""
    if front is not None:
        n = front.normalisation
        name = tape.write("Div", [tape.write("Sub", [name, tape.constant(n.mean)]), tape.constant(n.deviation)])
    assert value.scale is not None
    double = tape.write("Cast", [name], to=TensorProto.DOUBLE)
    steps = tape.write("Div", [double, tape.constant(np.array(value.scale, np.float64))])
    whole = tape.write("Floor", [tape.write("Add", [steps, tape.constant(np.array(0.5))])])
    moved = tape.write("Add", [whole, tape.constant(np.array(float(value.zero_point)))])
    ends = [tape.constant(np.array(float(e))) for e in arith.limits(value.bits)]
    return tape.write("Cast", [tape.write("Clip", [moved, *ends])], to=INT32)


def as_real(tape: Tape, symbol: Symbol, value: Value, name: str) -> Any:
    """The real numbers that integers stand for, as an output."""
    assert value.scale is not None
    real = tape.write("Cast", [(symbol - value.zero_point).as_type(INT32)], to=TensorProto.FLOAT)
    tape.write("Mul", [real, tape.constant(np.array(value.scale, np.float32))], name)
    return info(name, symbol, TensorProto.FLOAT)


def tokens_text(front: FrontEnd) -> str:
    """``tokens.txt`` as sherpa-onnx reads it: a piece and its number a line."""
    return "".join(f"{piece} {i}\n" for i, piece in enumerate((BLANK_PIECE, *front.tokens.pieces)))
