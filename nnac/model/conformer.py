"""The Conformer transducer: an encoder of chunked self-attention and causal convolution, streaming; prediction network
and joint are the RNN-T's.

    features > stack > input > swish > reduce > join > norm > block[0] > block[1] > …

A block: half a feed-forward, attention, convolution, half a feed-forward, layer norm; each part reads a layer norm of
what it is added to.  A step of the encoder is one chunk: its frames hear each other and ``left`` frames before them,
which lie in rings (`nnac.ops._ring`).  Source: Gulati et al. 2020 (arXiv 2005.08100), chunks as Chen et al. 2021
(arXiv 2010.11395); a learnt bias a head and distance, layer norm in the place of batch norm (or batch
norm, folded): our choice.

Sizes by name (our choice): ``small`` has as many weights as the RNN-T's ``small``, ``large`` is of the class of the
Conformer of GQ's paper (Zhen et al. 2022).
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

from nnac.model.graph import Kernel, Layer, ModelError, ModelGraph, builder
from nnac.model.rnnt import (
    ENCODER,
    JOINT,
    PREDICTION,
    joint_of,
    linear_layer,
    prediction_of,
    stateless_prediction_of,
)

MOST_CHUNK = 8
AHEAD = MOST_CHUNK - 1         # positions of the learnt bias before that of the frame itself: frames of the same chunk
NORMS = ("layer", "batch")
CHUNKS, LEFTS = (1, 2, 4, 8), (8, 16, 32)              # what training draws from

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(features=8, stack=2, width=16, blocks=2, heads=2, feed=24, kernel=4, left=4, chunk=2, positions=16,
                 embedding=8, prediction_cells=16, joint=16, vocabulary=12),
    "small": dict(width=128, blocks=6, heads=4, feed=256, prediction_cells=256, joint=256),
    "medium": dict(width=192, blocks=10, heads=4, feed=512, prediction_cells=320, joint=320),
    "large": dict(width=256, blocks=8, heads=4, feed=1024, kernel=15, prediction_cells=512, joint=512),
}
SHAPE = dict(features=40, stack=3, reduce=2, kernel=11, chunk=4, left=16, positions=48, embedding=64, vocabulary=64,
             stateless=0, norm="layer")
LIMITS = dict(features=(1, 4096), stack=(1, 256), reduce=(1, 256), width=(4, 4096), blocks=(1, 256), heads=(1, 32),
              feed=(4, 1 << 16), kernel=(1, 32), chunk=(1, MOST_CHUNK), left=(1, 63), positions=(AHEAD + 2, 256),
              embedding=(1, 1 << 16), prediction_cells=(1, 1 << 16), joint=(1, 1 << 16), vocabulary=(2, 1 << 20),
              stateless=(0, 8))


@builder
def conformer(size: str = "small", *,
              features: int | None = None, stack: int | None = None, reduce: int | None = None,
              width: int | None = None, blocks: int | None = None, heads: int | None = None, feed: int | None = None,
              kernel: int | None = None, chunk: int | None = None, left: int | None = None,
              positions: int | None = None, embedding: int | None = None, prediction_cells: int | None = None,
              joint: int | None = None, vocabulary: int | None = None, stateless: int | None = None,
              norm: str | None = None, frame_ms: float | None = None) -> ModelGraph:
    """A Conformer transducer of a named ``size``, any of whose dimensions can be overridden.

    stack, reduce  frames joined before the first layer, and after it      width, feed  of a block, and inside its
    feed-forwards      heads  of attention      kernel  frames that the convolution covers
    chunk    frames of a step, which hear each other      left  frames before the chunk that are heard
    positions  of the learnt bias, a head and distance: 7 ahead, the frame itself, and the others before it
    norm     layer | batch: what follows the depthwise convolution; a batch norm is in the convolution's weights
    stateless  labels that the prediction network knows, in the place of its LSTM (0: the LSTM, which knows all)
    """
    if size not in SIZES:
        raise ModelError(f"no Conformer's size is called `{size}` (there are: {', '.join(SIZES)})")
    given = dict(features=features, stack=stack, reduce=reduce, width=width, blocks=blocks, heads=heads, feed=feed,
                 kernel=kernel, chunk=chunk, left=left, positions=positions, embedding=embedding,
                 prediction_cells=prediction_cells, joint=joint, vocabulary=vocabulary,
                 stateless=stateless, norm=norm)
    said = {k: v for k, v in given.items() if v is not None}
    s: dict[str, Any] = dict(SHAPE, reduce=2) | SIZES[size] | said
    check(s)
    frame = 10.0 if frame_ms is None else frame_ms
    out: list[Layer] = []

    def put(layer: Layer) -> str:
        out.append(layer)
        return layer.path

    rate = s["chunk"] * s["reduce"]
    x = "features"
    if s["stack"] > 1:
        x = put(Layer("encoder.stack", "stack", (x,), s["features"] * s["stack"], rate, ENCODER.name, (),
                      dict(frames=s["stack"])))
    x = put(linear_layer("encoder.input", x, s["features"] * s["stack"], s["width"], ENCODER.name, rate=rate))
    x = put(Layer("encoder.activation", "swish", (x,), s["width"], rate, ENCODER.name))
    if s["reduce"] > 1:
        x = put(Layer("encoder.reduce", "stack", (x,), s["width"] * s["reduce"], s["chunk"], ENCODER.name, (),
                      dict(frames=s["reduce"])))
    x = put(linear_layer("encoder.join", x, s["width"] * s["reduce"], s["width"], ENCODER.name, rate=s["chunk"]))
    x = put(Layer("encoder.norm", "layer_norm", (x,), s["width"], s["chunk"], ENCODER.name))
    for i in range(s["blocks"]):
        made = block(f"encoder.block[{i}]", x, s)
        out += made
        x = made[-1].path
    put(linear_layer("joint.encoder", x, s["width"], s["joint"], ENCODER.name, rate=s["chunk"]))
    out += stateless_prediction_of(s) if s["stateless"] else prediction_of(s)
    out += joint_of(s["joint"], s["vocabulary"])
    joints = evolve(JOINT, per_frame=s["chunk"])
    return ModelGraph("conformer", dict(size=size) | said | ({} if frame_ms is None else dict(frame_ms=frame_ms)),
                      tuple(out), dict(features=s["features"], label=1),
                      frame * s["stack"] * s["reduce"] * s["chunk"],
                      entries=(evolve(ENCODER, frames=False), PREDICTION, joints))


def check(s: dict[str, Any]) -> None:
    """ModelError: dimensions that no Conformer has."""
    for name, (least, most) in LIMITS.items():
        if not isinstance(s[name], int) or isinstance(s[name], bool) or not least <= s[name] <= most:
            raise ModelError(f"`{name}` of a Conformer is a whole number from {least} to {most}, not {s[name]!r}")
    if s["norm"] not in NORMS:
        raise ModelError(f"`norm` of a Conformer is {' or '.join(NORMS)}, not {s['norm']!r}")
    if s["width"] % s["heads"]:
        fits = [h for h in range(1, 33) if s["width"] % h == 0]
        nearest = min(fits, key=lambda h: abs(h - s["heads"]))
        raise ModelError(f"{s['heads']} heads do not divide a width of {s['width']} (`heads={nearest}` would)")
    if s["left"] % s["chunk"]:
        fits = s["left"] // s["chunk"] * s["chunk"] or s["chunk"]
        raise ModelError(f"a left context of {s['left']} frames is not a whole number of chunks of {s['chunk']} "
                         f"(`left={fits}` would be)")
    if (far := s["left"] + s["chunk"] - 1) > s["positions"] - AHEAD - 1:
        raise ModelError(f"the last frame of a chunk of {s['chunk']} hears {far} frames back, and {s['positions']} "
                         f"positions reach {s['positions'] - AHEAD - 1} (`positions={far + AHEAD + 1}` would reach it)")


def block(path: str, source: str, s: dict[str, Any]) -> list[Layer]:
    """The layers of one block that reads ``source``; the last one's output is the block's."""
    d, chunk = s["width"], s["chunk"]
    out: list[Layer] = []

    def put(name: str, kind: str, inputs: tuple[str, ...], width: int = d, **attributes: Any) -> str:
        out.append(Layer(f"{path}.{name}", kind, inputs, width, chunk, ENCODER.name, (), attributes))
        return out[-1].path

    def matrix(name: str, source: str, columns: int, rows: int) -> str:
        out.append(linear_layer(f"{path}.{name}", source, columns, rows, ENCODER.name, rate=chunk))
        return out[-1].path

    def feed(number: int, x: str) -> str:
        at = f"feed[{number}]"
        y = matrix(f"{at}.in", put(f"{at}.norm", "layer_norm", (x,)), d, s["feed"])
        y = matrix(f"{at}.out", put(f"{at}.swish", "swish", (y,), s["feed"]), s["feed"], d)
        return put(f"{at}.sum", "add", (x, y), factor=0.5)

    x = feed(0, source)
    y = put("attention.norm", "layer_norm", (x,))
    q, k, v = (matrix(f"attention.{name}", y, d, d) for name in ("query", "key", "value"))
    ring = dict(chunk=chunk, left=s["left"], heads=s["heads"], head=d // s["heads"])
    heard = s["heads"] * (s["left"] + chunk)
    y = put("attention.scores", "scores", (q, k), heard, **ring, positions=s["positions"], ahead=AHEAD)
    y = put("attention.probabilities", "softmax", (y,), heard, groups=s["heads"])
    y = put("attention.context", "weighted_sum", (y, v), **ring)
    x = put("attention.sum", "add", (x, matrix("attention.output", y, d, d)))
    y = matrix("convolution.in", put("convolution.norm", "layer_norm", (x,)), d, 2 * d)
    y = put("convolution.glu", "glu", (y,))
    at = f"{path}.convolution.depthwise"
    out.append(Layer(at, "depthwise", (y,), d, chunk, ENCODER.name, (Kernel("weight", f"{at}.weight", d, s["kernel"]),),
                     dict(chunk=chunk, taps=s["kernel"])))
    y = put("convolution.middle", "layer_norm", (at,)) if s["norm"] == "layer" else at
    y = matrix("convolution.out", put("convolution.swish", "swish", (y,)), d, d)
    x = put("convolution.sum", "add", (x, y))
    put("norm", "layer_norm", (feed(1, x),))
    return out
