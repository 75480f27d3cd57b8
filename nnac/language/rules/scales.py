"""Rules about scales that layers share."""

from __future__ import annotations

import math
from collections.abc import Iterator

from attrs import frozen

from nnac.diagnostics import Diagnostic
from nnac.language.resolution import CompiledRule, Entry
from nnac.language.rules.base import Label, Resolution, Rule, example, place, problem
from nnac.language.widths import input_bits
from nnac.model.graph import Kernel, Layer
from nnac.plan import Activations, Weights

FEW = 16                       # levels: fewer than 4 bits of weights
# clip of features, embeddings, layer norms: 2.6 to 3.7 in trained networks, 1 at the least
WIDEST = 4.0


@frozen
class Starved:
    """What is left of a kernel at best: ``levels`` of the ``whole``."""

    layer: Layer
    kernel: Kernel
    levels: int
    whole: int
    input_bits: int
    hidden_bits: int
    source: int                # site whose activations the input kernel reads


class StarvedKernel(Rule):
    """A kernel of an LSTM whose weights are left with almost no codes, for it shares its scale with the other kernel.

    Under `accumulate acc32` input and recurrent products meet in one sum, so in every row (scale of the inputs) x
    (scale of the input weights) = (scale of the hidden state) x (scale of the recurrent weights).  Where inputs and
    hidden state are held in very different steps, as int4 inputs (or a wide clip) with an int8 hidden state, the
    weights that meet the finer one round to a few small integers, or all to zero. The figure is the best case: two
    kernels of like real weights, and of the clips that training will choose the kindest. Write `accumulate sum16`: each
    kernel then has scales of its own, for one more requantisation a row.  Or hold both in the same width.
    """

    code = "starved-kernel"
    example = example("layers encoder.norm[*], encoder.reduce { activations int4 percentile(99.9) }\n"
                      "layers encoder.lstm[*] { hidden int8 fixed(1); accumulate acc32 }",
                      'import "targets/rapid.nnac"\n\npolicy example {\n  model   rnnt(size="small")\n'
                      '  target  rapid\n')

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        groups: dict[tuple[int, int], list[Starved]] = {}                # by the settings that made the steps differ
        for layer in r.model:
            i = r.sites.number[layer.path]
            if not layer.operator.shares_sum or r.values["accumulate"][i] != "acc32":
                continue
            for found in starved(r, layer):
                hidden, source = self.said(r, i), self.said(r, found.source)
                groups.setdefault((id(hidden[1]) if hidden else 0, id(source[1]) if source else 0), []).append(found)
        for group in groups.values():
            yield self.diagnostic(r, group)

    @staticmethod
    def said(r: Resolution, i: int) -> tuple[CompiledRule, Entry] | None:
        """The rule that decided the width of what a layer gives; None for a default."""
        found = next((w for n in ("hidden", "activations") if (w := r.winners[n].get(i)) is not None), None)
        return (r.rules[found[0]], found[1]) if found else None

    def diagnostic(self, r: Resolution, group: list[Starved]) -> Diagnostic:
        assert r.sites is not None
        worst = min(group, key=lambda f: f.levels)
        paths = list(dict.fromkeys(f.layer.path for f in group))
        hidden, source = self.said(r, r.sites.number[worst.layer.path]), self.said(r, worst.source)
        more = f" (and of {len(paths) - 1} more)" if len(paths) > 1 else ""
        left = f"{worst.levels} of {worst.whole} codes at best" if worst.levels > 1 else "nothing but zeros"
        inputs = f"its inputs, from `{r.sites.paths[worst.source]}`, are int{worst.input_bits}"
        related = (Label(r.entry_span(*source), "the inputs"),
                   ) if source is not None and hidden is not None and source[1] is not hidden[1] else ()
        same = f"or int{worst.input_bits} for both" if worst.input_bits != worst.hidden_bits else "or clips alike"
        return problem(self.code, place(r, hidden or source),
                       f"`acc32` leaves the {worst.kernel.name} weights of `{worst.layer.path}`{more} {left}",
                       f"the hidden state is int{worst.hidden_bits}; {inputs}",
                       f"`accumulate sum16` gives each kernel a scale of its own; {same}", severity="warning",
                       related=related)


def starved(r: Resolution, layer: Layer) -> Iterator[Starved]:
    """The kernels of an `acc32` LSTM that are left with fewer than `FEW` levels, and with less than half of those they
    could have."""
    assert r.model is not None and r.sites is not None
    number = r.sites.number
    kernels = {k.path.rpartition(".")[0]: k for k in layer.kernels if k.name == "input"}
    for base, first in kernels.items():
        second = next(k for k in layer.kernels if k.path == f"{base}.recurrent")
        at = source(r, layer)
        bits = input_bits(r.model, r.values, number, layer, first), input_bits(r.model, r.values, number, layer, second)
        low, high = steps(r, layer, at, *bits)
        apart = low if low > 1 else 1 / high if high < 1 else 1.0           # the least that the two steps can differ
        if apart == 1.0:
            continue
        kernel, other = (second, first) if low > 1 else (first, second)
        # kernels settled alike are quantised as one matrix, on their own width; others on a common unit, where narrow
        # ones have codes to spare
        alike = all(r.values["weights"][number[p]] == r.values["weights"][number[q]] for p in kernel.sites
                    for q in other.sites)
        left = [levels(w, apart, alike) for p in kernel.sites
                if (w := r.values["weights"][number[p]]).width.number == "int"]
        few = [(have, whole) for have, whole in left if have < FEW and 2 * have < whole]
        if few:
            yield Starved(layer, kernel, *min(few, key=lambda n: (n[0], -n[1])), *bits, at)


def levels(w: Weights, apart: float, alike: bool) -> tuple[int, int]:
    """(levels left, levels in all) of weights that reach 1 / ``apart`` of the range that their scale covers."""
    codebook = w.method is not None and type(w.method).codebook
    top = max(1, (1 << (w.multiplied_bits - 1)) - 1)
    whole = 1 << w.bits if codebook or w.bits == 1 else 2 * top + 1
    if alike and codebook:
        # centroids go where most weights of both are
        return min(whole, math.ceil(whole / apart) + 1), whole
    if not alike and w.bits < 8:
        top = 127
    return min(whole, 2 * math.floor(top / apart + 0.5) + 1), whole


def steps(r: Resolution, layer: Layer, at: int, input_bits_: int, hidden_bits: int) -> tuple[float, float]:
    """The least and the largest that (one step of the inputs) / (one step of the hidden state) can be."""
    assert r.sites is not None and r.model is not None
    low, high = clips(r, at, entering=at == r.sites.number[layer.path])
    least, most = clips(r, r.sites.number[layer.path])
    ratio = ((1 << (hidden_bits - 1)) - 1) / ((1 << (input_bits_ - 1)) - 1)
    if getattr(r.values["activations"][at].method, "keyword", "") == "pact":
        # all its codes stand for numbers from zero up
        ratio /= 2
    return low / most * ratio, high / least * ratio


def clips(r: Resolution, i: int, entering: bool = False) -> tuple[float, float]:
    """The least and the largest clip that what a layer gives may have (``entering``: what the model is given, held as
    the layer says): one number where the policy or the arithmetic fixes it."""
    assert r.sites is not None and r.model is not None
    layer = r.model.by_path[r.sites.paths[i]]
    given: Activations = r.values["activations"][i]                        # of a recurrent layer: its hidden state's
    fixed = getattr(given.method, "clip", None)
    if fixed is not None:
        return float(fixed), float(fixed)
    if layer.operator.bounded(layer.attributes) and not (layer.recurrent and entering):
        # h = o tanh(c): the lowering fixes its scale
        return 1.0, 1.0
    return 1.0, WIDEST


def source(r: Resolution, layer: Layer) -> int:
    """The site whose activations an LSTM's input kernel reads, through stacks; what enters the model is held like the
    first layer that reads it."""
    assert r.sites is not None and r.model is not None
    while layer.inputs[0] in r.model.by_path:
        layer = r.model.by_path[layer.inputs[0]]
        if not layer.operator.view:
            break
    return r.sites.number[layer.path]
