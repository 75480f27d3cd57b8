"""The language model: embedding, LSTM layers, a linear layer, log-softmax.  One step takes a label and gives the next
one's scores.

Its labels are those of the recogniser that it helps: the blank's number, 0, which no text contains, stands for the edge
of a sentence, before the first label and after the last.  Sizes by name (our choice): ``small`` goes with the demo's
recogniser, ``large`` is of the size that second passes are run with.
"""

from __future__ import annotations

from typing import Any

from nnac.entry import EntryPoint
from nnac.model.graph import GATES, Kernel, Layer, ModelError, ModelGraph, builder

STEP = EntryPoint("lm", per_frame=0, per_label=1, each_hypothesis=True)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(vocabulary=12, embedding=8, layers=1, cells=16),
    "small": dict(vocabulary=64, embedding=64, layers=1, cells=256),
    "large": dict(vocabulary=1024, embedding=512, layers=2, cells=2048, project=512),
}


@builder
def lm(size: str = "small", *, vocabulary: int | None = None, embedding: int | None = None, layers: int | None = None,
       cells: int | None = None, project: int | None = None, tied: bool | None = None) -> ModelGraph:
    """A language model of a named ``size``, any of whose dimensions can be overridden.

    layers   LSTM layers, ``cells`` each      project  width of their recurrent projection (LSTMP), 0 for none
    tied     the output's weight is the embedding's: the last LSTM's output is then as wide as the embedding
    """
    if size not in SIZES:
        raise ModelError(f"no language model's size is called `{size}` (there are: {', '.join(SIZES)})")
    given = {k: v for k, v in dict(vocabulary=vocabulary, embedding=embedding, layers=layers, cells=cells,
                                   project=project,
                                   tied=tied).items() if v is not None}
    s: dict[str, Any] = dict(project=0, tied=False) | SIZES[size] | given
    for name, least, most in (("vocabulary", 2, 1 << 20), ("embedding", 1, 1 << 16), ("layers", 1, 64),
                              ("cells", 1, 1 << 16),
                              ("project", 0, 1 << 16)):
        if not isinstance(s[name], int) or isinstance(s[name], bool) or not least <= s[name] <= most:
            raise ModelError(f"`{name}` of a language model is a whole number from {least} to {most}, not {s[name]!r}")
    if not isinstance(s["tied"], bool):
        raise ModelError(f"`tied` of a language model is true or false, not {s['tied']!r}")
    hidden = s["project"] or s["cells"]
    if s["tied"] and hidden != s["embedding"]:
        raise ModelError(f"a tied output needs an embedding as wide as what the last LSTM returns: {s['embedding']} is "
                         f"not {hidden}")

    out = [Layer("lm.embedding", "embedding", ("label",), s["embedding"], 1, STEP.name,
                 (Kernel("weight", "lm.embedding.weight", s["vocabulary"], s["embedding"]),))]
    for i in range(s["layers"]):
        path, width = f"lm.lstm[{i}]", out[-1].width
        kernels = [Kernel("input", f"{path}.input", 4 * s["cells"], width, GATES),
                   Kernel("recurrent", f"{path}.recurrent", 4 * s["cells"], hidden, GATES)]
        if s["project"]:
            kernels.append(Kernel("project", f"{path}.project", s["project"], s["cells"]))
        out.append(Layer(path, "lstm", (out[-1].path,), hidden, 1, STEP.name, tuple(kernels),
                         dict(input_size=width, cells=s["cells"], bidirectional=False, project=s["project"])))
    out.append(Layer("lm.output", "linear", (out[-1].path,), s["vocabulary"], 1, STEP.name,
                     (Kernel("weight", "lm.output.weight", s["vocabulary"], hidden),), dict(bias=True)))
    out.append(Layer("lm.scores", "log_softmax", ("lm.output",), s["vocabulary"], 1, STEP.name))
    return ModelGraph("lm", dict(size=size) | given, tuple(out), dict(label=1), entries=(STEP,))
