"""The streaming RNN-T (and its bidirectional, offline relative): encoder, prediction network, joint.

Sizes by name: ``small`` is the demo's 2.2 M-weight streaming model, ``streaming57m`` and ``saon57m`` are the 57
M-weight models of docs/methods.md §5 (Saon et al. 2021: 6 bidirectional layers of 640 cells per direction,
multiplicative joint, 46 outputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnac.entry import EntryPoint
from nnac.model.graph import GATES, Kernel, Layer, ModelError, ModelGraph, builder

# a search runs the prediction network once for each label that a hypothesis takes, and the joint for each frame and
# each label of each
ENCODER = EntryPoint("encoder", per_frame=1, frames=True)
PREDICTION = EntryPoint("prediction", per_frame=0, per_label=1, each_hypothesis=True)
JOINT = EntryPoint("joint", per_frame=1, per_label=1, each_hypothesis=True)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(features=8, stack=2, reduce=2, layers=2, cells=16, embedding=8, prediction_cells=16, joint=16,
                 vocabulary=12),
    "small": dict(features=40, stack=3, reduce=2, layers=3, cells=256, embedding=64, prediction_cells=256, joint=256,
                  vocabulary=64),
    "medium": dict(features=40, stack=3, reduce=2, layers=5, cells=512, embedding=64, prediction_cells=512, joint=512,
                   vocabulary=64),
    "streaming57m": dict(features=40, stack=3, reduce=1, layers=8, cells=942, embedding=64, prediction_cells=768,
                         joint=512,
                         vocabulary=64, norm=False),
    "saon57m": dict(features=340, stack=1, reduce=1, layers=6, cells=640, embedding=10, prediction_cells=768, joint=256,
                    vocabulary=46, norm=False, bidirectional=True, combine="multiply", frame_ms=20.0),
}


def _lstm(path: str, source: str, width: int, cells: int, rate: int, entry: str, *, bidirectional: bool = False,
          project: int = 0) -> Layer:
    hidden = project or cells
    kernels: list[Kernel] = []
    for direction in ("forward", "backward") if bidirectional else ("",):
        base = f"{path}.{direction}" if direction else path
        kernels += [Kernel("input", f"{base}.input", 4 * cells, width, GATES),
                    Kernel("recurrent", f"{base}.recurrent", 4 * cells, hidden, GATES)]
        if project:
            kernels.append(Kernel("project", f"{base}.project", project, cells))
    return Layer(path, "lstm", (source,), hidden * (2 if bidirectional else 1), rate, entry, tuple(kernels),
                 dict(input_size=width, cells=cells, bidirectional=bidirectional, project=project))


def linear_layer(path: str, source: str, width: int, outputs: int, entry: str, *, bias: bool = True,
                 rate: int = 1) -> Layer:
    """A matrix [outputs, width], and a bias."""
    return Layer(path, "linear", (source,), outputs, rate, entry, (Kernel("weight", f"{path}.weight", outputs, width),),
                 dict(bias=bias))


def prediction_of(s: Mapping[str, Any]) -> list[Layer]:
    """The prediction network of sizes ``vocabulary``, ``embedding``, ``prediction_cells``, ``joint``."""
    at, cells = PREDICTION.name, s["prediction_cells"]
    return [Layer("prediction.embedding", "embedding", ("label",), s["embedding"], 1, at,
                  (Kernel("weight", "prediction.embedding.weight", s["vocabulary"], s["embedding"]),)),
            _lstm("prediction.lstm[0]", "prediction.embedding", s["embedding"], cells, 1, at),
            linear_layer("joint.prediction", "prediction.lstm[0]", cells, s["joint"], at, bias=False)]


def stateless_prediction_of(s: Mapping[str, Any]) -> list[Layer]:
    """A prediction network that knows the last ``stateless`` labels and nothing else: their embeddings, each channel
    summed by itself with a weight for each label (of one label: its embedding).

    Source: Ghodsi et al. 2020 (one label), Botros et al. 2021 (arXiv 2109.07513, two); a depthwise convolution and a
    swish as in icefall's decoder (background).
    """
    at, width, labels = PREDICTION.name, s["embedding"], s["stateless"]
    out = [Layer("prediction.embedding", "embedding", ("label",), width, 1, at,
                 (Kernel("weight", "prediction.embedding.weight", s["vocabulary"], width),))]
    if labels > 1:
        out += [Layer("prediction.past", "depthwise", (out[-1].path,), width, 1, at,
                      (Kernel("weight", "prediction.past.weight", width, labels),), dict(chunk=1, taps=labels)),
                Layer("prediction.activation", "swish", ("prediction.past",), width, 1, at)]
    return [*out, linear_layer("joint.prediction", out[-1].path, width, s["joint"], at, bias=False)]


def joint_of(width: int, vocabulary: int, combine: str = "add") -> list[Layer]:
    """The joint network over `joint.encoder` and `joint.prediction`, ``width`` each."""
    return [Layer("joint.combine", combine, ("joint.encoder", "joint.prediction"), width, 1, JOINT.name),
            Layer("joint.activation", "tanh", ("joint.combine",), width, 1, JOINT.name),
            linear_layer("joint.output", "joint.activation", width, vocabulary, JOINT.name)]


@builder
def rnnt(size: str = "small", *,
         features: int | None = None, stack: int | None = None, reduce: int | None = None, layers: int | None = None,
         cells: int | None = None, embedding: int | None = None, prediction_cells: int | None = None,
         joint: int | None = None,
         vocabulary: int | None = None, norm: bool | None = None, bidirectional: bool | None = None,
         combine: str | None = None,
         project: int | None = None, frame_ms: float | None = None) -> ModelGraph:
    """An RNN-T of a named ``size``, any of whose dimensions can be overridden.

    features     feature vector per 10 ms frame        stack    frames joined before the first layer
    reduce       frames joined after the first layer   layers   LSTM layers of the encoder, ``cells`` each
    project      width of the LSTM's recurrent projection (LSTMP), 0 for none
    norm         layer norm after each encoder layer   combine  add | multiply: how the joint merges its two inputs
    """
    if size not in SIZES:
        raise ModelError(f"no RNN-T size is called `{size}` (there are: {', '.join(SIZES)})")
    s: dict[str, Any] = dict(norm=True, bidirectional=False, combine="add", project=0, frame_ms=10.0) | SIZES[size]
    given = dict(features=features, stack=stack, reduce=reduce, layers=layers, cells=cells, embedding=embedding,
                 prediction_cells=prediction_cells, joint=joint, vocabulary=vocabulary, norm=norm,
                 bidirectional=bidirectional,
                 combine=combine, project=project, frame_ms=frame_ms)
    s |= {k: v for k, v in given.items() if v is not None}
    for name in ("features", "stack", "reduce", "layers", "cells", "embedding", "prediction_cells", "joint"):
        if not isinstance(s[name], int) or not 1 <= s[name] <= 1 << 16:
            raise ModelError(f"`{name}` of an RNN-T is a whole number from 1 to 65536, not {s[name]!r}")
    if not isinstance(s["vocabulary"], int) or not 2 <= s["vocabulary"] <= 1 << 20:
        raise ModelError(f"`vocabulary` of an RNN-T is a whole number from 2 (blank and one symbol) to 1048576, not "
                         f"{s['vocabulary']!r}")
    if s["combine"] not in ("add", "multiply"):
        raise ModelError(f"`combine` of an RNN-T is add or multiply, not {s['combine']!r}")

    out: list[Layer] = []
    source, width, rate = "features", s["features"], s["reduce"]

    def put(layer: Layer) -> None:
        nonlocal source, width
        out.append(layer)
        source, width = layer.path, layer.width

    if s["stack"] > 1:
        put(Layer("encoder.stack", "stack", (source,), width * s["stack"], rate, "encoder", (),
                  dict(frames=s["stack"])))
    for i in range(s["layers"]):
        put(_lstm(f"encoder.lstm[{i}]", source, width, s["cells"], rate, "encoder", bidirectional=s["bidirectional"],
                  project=s["project"]))
        if s["norm"]:
            put(Layer(f"encoder.norm[{i}]", "layer_norm", (source,), width, rate, "encoder"))
        if i == 0 and s["reduce"] > 1:
            rate = 1
            put(Layer("encoder.reduce", "stack", (source,), width * s["reduce"], rate, "encoder", (),
                      dict(frames=s["reduce"])))
    put(linear_layer("joint.encoder", source, width, s["joint"], "encoder"))
    out += [*prediction_of(s), *joint_of(s["joint"], s["vocabulary"], s["combine"])]
    return ModelGraph("rnnt", dict(size=size) | {k: v for k, v in given.items() if v is not None}, tuple(out),
                      dict(features=s["features"], label=1), s["frame_ms"] * s["stack"] * s["reduce"],
                      entries=(ENCODER, PREDICTION, JOINT))
