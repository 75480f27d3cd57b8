"""The hybrid's acoustic model: a deep bidirectional LSTM, a bottleneck, log-probabilities of HMM states.

Sizes by name: ``small`` is the demo's, ``dblstm43m`` that of docs/methods.md §6 (Fasoli et al. 2021): 6 layers of 2 x
512 cells, a bottleneck of 256, 32,000 context-dependent states, 43.1 M weights.  The paper does not give the input; 260
is 40 fMLLR features, 100 of an i-vector and 40 log-mel with two deltas, the group's usual one (background knowledge).
Layer norms are ours, and of the small size only.
"""

from __future__ import annotations

from typing import Any

from nnac.entry import EntryPoint
from nnac.model.graph import GATES, Kernel, Layer, ModelError, ModelGraph, builder

# a bidirectional entry hears the whole utterance before it says anything
ENCODER = EntryPoint("encoder", per_frame=1, frames=True)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(features=8, stack=2, layers=2, cells=16, bottleneck=16, states=12),
    "small": dict(features=40, stack=3, layers=3, cells=192, bottleneck=128, states=512),
    "dblstm43m": dict(features=260, stack=1, layers=6, cells=512, bottleneck=256, states=32_000, norm=False),
}
MOST_STATES = (1 << 15) - 1            # of one log-softmax


@builder
def hybrid(size: str = "small", *, features: int | None = None, stack: int | None = None, layers: int | None = None,
           cells: int | None = None, bottleneck: int | None = None, states: int | None = None,
           norm: bool | None = None, frame_ms: float | None = None) -> ModelGraph:
    """A DBLSTM-HMM's acoustic model of a named ``size``, any of whose dimensions can be overridden.

    features    feature vector per 10 ms frame        stack   frames joined before the first layer: one step
    layers      bidirectional LSTM layers, ``cells`` a direction each
    bottleneck  width of the linear layer before the output, 0 for none
    states      HMM states, each with an output       norm    layer norm after each LSTM layer
    """
    if size not in SIZES:
        raise ModelError(f"no hybrid's size is called `{size}` (there are: {', '.join(SIZES)})")
    given = {k: v for k, v in dict(features=features, stack=stack, layers=layers, cells=cells, bottleneck=bottleneck,
                                   states=states, norm=norm, frame_ms=frame_ms).items() if v is not None}
    s: dict[str, Any] = dict(norm=True, frame_ms=10.0) | SIZES[size] | given
    for name, least, most in (("features", 1, 1 << 16), ("stack", 1, 256), ("layers", 1, 64), ("cells", 1, 1 << 16),
                              ("bottleneck", 0, 1 << 16), ("states", 2, MOST_STATES)):
        if not isinstance(s[name], int) or isinstance(s[name], bool) or not least <= s[name] <= most:
            raise ModelError(f"`{name}` of a hybrid is a whole number from {least} to {most}, not {s[name]!r}")
    if not isinstance(s["norm"], bool):
        raise ModelError(f"`norm` of a hybrid is true or false, not {s['norm']!r}")
    if isinstance(s["frame_ms"], bool) or not isinstance(s["frame_ms"], (int, float)) or not 0 < s["frame_ms"] < 1e4:
        raise ModelError(f"`frame_ms` of a hybrid is a number above 0, not {s['frame_ms']!r}")

    out: list[Layer] = []
    source, width = "features", s["features"]

    def put(kind: str, name: str, made: int, kernels: tuple[Kernel, ...] = (), **attributes: Any) -> None:
        nonlocal source, width
        out.append(Layer(f"{ENCODER.name}.{name}", kind, (source,), made, 1, ENCODER.name, kernels, attributes))
        source, width = out[-1].path, made

    def linear(name: str, made: int) -> None:
        put("linear", name, made, (Kernel("weight", f"{ENCODER.name}.{name}.weight", made, width),), bias=True)

    # there with one frame too: rules for `encoder.stack` are rules for the network's input
    put("stack", "stack", width * s["stack"], frames=s["stack"])
    for i in range(s["layers"]):
        path, cells_ = f"{ENCODER.name}.lstm[{i}]", s["cells"]
        kernels = tuple(Kernel(name, f"{path}.{direction}.{name}", 4 * cells_, cols, GATES)
                        for direction in ("forward", "backward")
                        for name, cols in (("input", width), ("recurrent", cells_)))
        put("lstm", f"lstm[{i}]", 2 * cells_, kernels, input_size=width, cells=cells_, bidirectional=True, project=0)
        if s["norm"]:
            put("layer_norm", f"norm[{i}]", width)
    if s["bottleneck"]:
        linear("bottleneck", s["bottleneck"])
    linear("output", s["states"])
    put("log_softmax", "scores", s["states"])
    return ModelGraph("hybrid", dict(size=size) | given, tuple(out), dict(features=s["features"]),
                      s["frame_ms"] * s["stack"], entries=(ENCODER,))
