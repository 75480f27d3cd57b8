"""Rules about what the target can and cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from nnac.diagnostics import Diagnostic
from nnac.language.cycles import machine
from nnac.language.placed import cpu_layers, seconds, width_of
from nnac.language.rules.base import (
    HEADER,
    CompiledRule,
    Entry,
    Label,
    Resolution,
    Rule,
    by_entry,
    example,
    place,
    problem,
    where,
)
from nnac.language.widths import decided_elsewhere, input_bits, output_bits, value_bits
from nnac.model.graph import Kernel, Layer, ModelGraph
from nnac.ops import emitted
from nnac.plan import Weights, Width
from nnac.target import Target


def on_cpu(r: Resolution, layer: Layer) -> bool:
    """Whether a layer runs on the CPU: by the policy, or because the target or the compiler lacks its operator (in this
    form)."""
    assert r.model is not None and r.target is not None
    if r.on_cpu is None:
        r.on_cpu = cpu_layers(r.model, r.values, numbers(r), r.target)
    return layer.path in r.on_cpu


def number(r: Resolution, path: str) -> int:
    return numbers(r)[path]


def numbers(r: Resolution) -> dict[str, int]:
    assert r.sites is not None
    return r.sites.number


class UnsupportedByTarget(Rule):
    """A width, codec or accumulator that the target does not have.

    The compiler would refuse it later, or worse, run it on the CPU.  Choose one that the target multiplies, another
    target, or `place cpu`.
    """

    code = "unsupported-by-target"
    example = example("layers joint.** { weights int16 }", HEADER.replace("edge", "tiny"))

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.target is None or r.sites is None or r.model is None:
            return
        nna = sum(1 << number(r, p) for layer in r.model if not on_cpu(r, layer) for p in layer.sites)
        t = r.target
        for setting, mask in (("weights", r.sites.leaves), ("activations", r.sites.layers), ("hidden", r.sites.layers),
                              ("accumulator", r.sites.layers),
                              ("codec", r.sites.leaves)):
            for decided, sites, value in by_entry(r, setting, mask & nna):
                found = self.why(setting, value, t)
                if found is not None:
                    label = where(r, sites) + ("" if decided is not None else f": {value} is the default")
                    yield problem(self.code, place(r, decided), found[0], label, found[1])

    @staticmethod
    def why(setting: str, value: Any, t: Target) -> tuple[str, str] | None:
        if setting == "weights":
            w: Weights = value
            if t.multiply_width(w.multiplied_bits, w.width.number) is None:
                return (f"`{t.name}` does not multiply {w.width} weights",
                        f"it multiplies {', '.join(t.multiply)}; or `place cpu`")
        elif setting in ("activations", "hidden"):
            wide = [Width.parse(a) for a in t.activations]
            if not any(a.number == value.width.number and a.bits >= value.bits for a in wide):
                return (f"`{t.name}` does not take {value.width} activations",
                        f"it takes {', '.join(t.activations)}; or `place cpu`")
        elif setting == "accumulator" and value.bits not in t.accumulators:
            return f"`{t.name}` has no {value}-bit accumulator".replace("int",
                ""), f"it has {', '.join(f'int{a}' for a in t.accumulators)}"
        elif setting == "codec" and value != "auto" and value not in t.codecs:
            return f"the decoder of `{t.name}` does not read `{value}`", f"it reads {', '.join(t.codecs)}"
        return None


class TrainedOnly(Rule):
    """Real weights: a layer that can be trained beside the others, but not compiled.

    For ablations: what would this layer cost if it alone stayed real?  The program needs integers; choose a width
    before compiling.
    """

    code = "trained-only"
    example = example("layers joint.output { weights float; place cpu }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        assert r.sites is not None
        for decided, sites, value in by_entry(r, "weights", r.sites.leaves):
            if value.width.number == "fp":
                yield problem(self.code, place(r, decided), "real weights can be trained, not compiled",
                              where(r, sites),
                              "choose an integer width before `nnac compile`", severity="warning")


class NoGain(Rule):
    """Activations narrower than anything the target computes with.

    They would be widened before every product: accuracy is lost and nothing is won.  (Narrow weights are worth it:
    fewer bytes are read.)
    """

    code = "no-gain"
    example = example("layers encoder.lstm[*] { activations int4 pact_symmetric }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.target is None or r.sites is None:
            return
        for decided, sites, value in by_entry(r, "activations", r.sites.layers):
            widths = [int(a[3:]) for a in r.target.activations if a.startswith("int")]
            if decided is not None and value.width.number == "int" and widths and value.bits < min(widths):
                yield problem(self.code, place(r, decided),
                              f"`{r.target.name}` computes with int{min(widths)} at least: {value.width} activations "
                              f"win nothing",
                              where(r, sites), f"`int{min(widths)}`, or a target with int{value.bits} such as `rapid`",
                              severity="warning")


class AccumulatorOverflow(Rule):
    """Sums of products that may not fit the accumulator.

    n products of a-bit by b-bit integers need a + b - 1 + log2(n) bits in the worst case.  Overflow is never wrapped or
    saturated here: it is refused.  Narrow the activations or the weights, or choose a wider accumulator.
    """

    code = "accumulator-overflow"
    example = example("layers encoder.** { activations int16; accumulator int32 }", header=(
        'import "targets/edge.nnac"\n\npolicy example {\n  model   rnnt(size="small", cells=1024)\n  target  edge\n'))

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        groups: dict[int, list[tuple[int, Layer, Kernel]]] = {}         # by the setting that made the activations wide
        for layer in r.model:
            i = number(r, layer.path)
            if i not in r.values["accumulator"] or (r.target is not None and on_cpu(r, layer)):
                continue
            sums, kernel = self.worst(r, layer, i)
            need = sums.bit_length() + 1                                # the sign
            if need > r.values["accumulator"][i].bits:
                decided = self.decided(r, layer, kernel)
                groups.setdefault(id(decided[1]) if decided else 0, []).append((need, layer, kernel))
        for found in groups.values():
            yield self.overflow(r, *max(found, key=lambda f: f[0]), len(found) - 1)

    def worst(self, r: Resolution, layer: Layer, i: int) -> tuple[int, Kernel]:
        """The largest magnitude that a sum of the layer can reach, and the kernel that adds most to it."""
        sharing = layer.operator.shares_sum if r.values["accumulate"].get(i) == "acc32" else ()
        parts = [(self.reach(r, layer, k, i), k) for k in layer.kernels]
        most = max(parts, key=lambda p: p[0])
        if not sharing:
            return most
        together: dict[str, int] = {}
        for value, k in parts:                                # both directions have sums of their own
            if k.name in sharing:
                together[k.path.rpartition(".")[0]] = together.get(k.path.rpartition(".")[0], 0) + value
        return max([*together.values(), *(v for v, k in parts if k.name not in sharing)]), most[1]

    def reach(self, r: Resolution, layer: Layer, kernel: Kernel, i: int) -> int:
        bits = activation_bits(r, layer, kernel)
        weights = max((abs_max(r.values["weights"][number(r, p)]) for p in kernel.sites), default=0)
        return kernel.cols * weights << (bits - 1)

    def decided(self, r: Resolution, layer: Layer, kernel: Kernel) -> tuple[CompiledRule, Entry] | None:
        """What made the activations that meet a kernel as wide as they are."""
        source = activation_source(r, layer, kernel)
        found = next((w for n in ("hidden", "activations") if (w := r.winners[n].get(source)) is not None), None)
        return (r.rules[found[0]], found[1]) if found else None

    def overflow(self, r: Resolution, need: int, layer: Layer, kernel: Kernel, more: int) -> Diagnostic:
        a, w = activation_bits(r, layer, kernel), max(r.values["weights"][number(r, p)].multiplied_bits
                                                      for p in kernel.sites)
        bits = r.values["accumulator"][number(r, layer.path)].bits
        winner = r.winners["weights"].get(number(r, kernel.sites[-1]))
        related = (Label(r.entry_span(r.rules[winner[0]], winner[1]), "the weights come from here"),) if winner else ()
        wider = next((b for b in sorted(r.target.accumulators if r.target else (48,)) if b >= need), None)
        help = [f"`accumulator int{wider}` holds it" if wider else "", f"`int8` would need {need - a + 8} bits"
                if a > 8 else ""]
        others = f" and {more} more {'layer' if more == 1 else 'layers'}" if more else ""
        return problem(self.code, place(r, self.decided(r, layer, kernel)),
                       f"`{layer.path}`{others} may exceed the {bits}-bit accumulator",
                       f"{kernel.cols} products of int{w} by int{a} in `{kernel.path}`: {need} bits", *help,
                       related=related)


def abs_max(w: Weights) -> int:
    """The largest magnitude of an integer weight; real ones (on the CPU) have no sums here."""
    return 0 if w.width.number == "fp" else 1 << (w.multiplied_bits - 1)


def activation_source(r: Resolution, layer: Layer, kernel: Kernel) -> int:
    """The layer whose output a kernel multiplies, through stacks; itself for recurrent kernels and for an entry
    input."""
    assert r.model is not None
    if layer.operator.meets[kernel.name] == "hidden":
        return number(r, layer.path)
    source = r.model.by_path.get(layer.inputs[0])
    while source is not None and source.operator.view and source.inputs[0] in r.model.by_path:
        source = r.model.by_path[source.inputs[0]]
    return number(r, (source or layer).path)


def activation_bits(r: Resolution, layer: Layer, kernel: Kernel) -> int:
    """Bits of the integers that meet a kernel."""
    assert r.model is not None
    return input_bits(r.model, r.values, numbers(r), layer, kernel)


class WidthNotUsed(Rule):
    """An activation width where the width is decided elsewhere.

    A recurrent layer gives its hidden state, so `hidden` decides there; what a table reads is int16; a stack passes on
    what it is given. Only rules written for such layers alone are reported.  Say it where it is decided, or remove it.
    """

    code = "width-not-used"
    example = example("layers encoder.lstm[*] { activations int16; hidden int8 }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        for decided, sites, _ in by_entry(r, "activations"):
            if decided is None:
                continue
            layers = [r.model.layer_of(p) for p in r.sites.named(decided[1].mask)]
            reasons = {layer.path: self.reason(r, layer, decided[1].value) for layer in layers}
            if all(reasons.values()):
                first = layers[0]
                yield problem(self.code, place(r, decided), f"`activations` of {where(r, sites)} decides nothing",
                              str(reasons[first.path]),
                              "say `hidden` there, and nothing else" if first.recurrent else "remove it",
                              severity="warning")

    @staticmethod
    def reason(r: Resolution, layer: Layer, value: Any) -> str | None:
        assert r.model is not None
        i = number(r, layer.path)
        if layer.recurrent:
            said = r.winners["hidden"].get(i)
            return (f"its output is its hidden state, {said[1].value}" if said is not None and said[1].value != value
                    else None)
        return decided_elsewhere(r.model, layer)


class CpuFallback(Rule):
    """A layer that runs on the CPU, with what that costs.

    Its values travel to the CPU and back at every step, and the CPU has to be woken: often more time than the layer
    itself.  Sometimes that is right; it is never free.  Choose an operator that the target has, or keep the price in
    mind.
    """

    code = "cpu-fallback"
    example = example("layers joint.activation { place cpu }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.target is None or r.model is None:
            return
        t = r.target
        for decided, sites, value in by_entry(r, "place"):
            here = [layer for i in sites
                    if on_cpu(r, layer := r.model.layer_of(r.sites.paths[i]))]  # type: ignore[union-attr]
            if not here:
                continue
            cost = sum(float(self.seconds(r, t, layer)) for layer in here)
            names = where(r, [number(r, layer.path) for layer in here])
            lacking = [found for layer in here if (found := self.lacking(t, layer)) is not None]
            asked = value == "cpu" and not lacking
            why = "" if asked else f": {lacking[0]}" if lacking else ": no instruction takes vectors of this form"
            help = ("`place nna`: the target has the operator" if asked else "choose a target that has the operator"
                    if lacking and emitted(here[0].kind) else "compare its price with what the layer is for")
            yield problem(self.code, place(r, decided),
                          f"{names} on the CPU costs about {cost * 1e6:.0f} us per step{why}",
                          f"waking it takes {float(t.cpu.wake) * 1e6:.0f} us each time", help, severity="warning")

    @staticmethod
    def lacking(t: Target, layer: Layer) -> str | None:
        """What there is not, to run a layer on the machine."""
        if not emitted(layer.kind):
            return f"nnac has no instructions for `{layer.kind}`"
        return None if layer.kind in t.operators else f"`{t.name}` has no `{layer.kind}`"

    @staticmethod
    def seconds(r: Resolution, t: Target, layer: Layer) -> Fraction:
        """What one step of a layer costs on the CPU."""
        model = r.model
        assert model is not None
        ins = [(width_of(model, i), value_bits(model, r.values, numbers(r), i)) for i in layer.inputs]
        hidden = r.values["hidden"].get(number(r, layer.path))
        return seconds(t, layer, ins, output_bits(model, r.values, numbers(r), layer), hidden.bits
                       if hidden is not None else 8, layer.rate)


class RingsOverflow(Rule):
    """What the model remembers does not fit the target's activation memory.

    Keys, values and the past of convolutions lie in rings in SRAM from step to step, beside stream buffers and pinned
    weights.  The compiler would refuse.  Shorten the left context, take a smaller model, or pin less.
    """

    code = "rings-overflow"
    example = example("layers ** { weights int8 }", (
        'import "targets/tiny.nnac"\n\npolicy example {\n  model   conformer(size="large", left=56, chunk=4, '
        'positions=72)\n  target  tiny\n'))

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.target is None or r.model is None or r.model_statement is None:
            return
        rings = {x.path: x.operator.state_bytes(x.attributes, x.width, 8) for x in r.model if x.operator.remembers}
        if not rings:
            return
        room, total = machine(r.target).a_bytes, sum(rings.values())
        beside = self.beside(r)
        if total + beside > room:
            most = max(rings, key=lambda path: rings[path])
            more = f", values and parameters of a step {beside:,} more at least" if total <= room else ""
            yield problem(self.code, r.model_statement.span(r.model_statement.node.call),
                          f"the rings of {len(rings)} layers take {total:,} bytes{more}; `{r.target.name}` has "
                          f"{room:,} for activations", f"`{most}` alone {rings[most]:,}",
                          self.instead(r.model, total + beside - room))

    @staticmethod
    def beside(r: Resolution) -> int:
        """Bytes that a step takes at the least beside the rings: one layer's values, and parameters, of which a ring
        of pages is held where they do not all stay."""
        from nnac.language.rules.budget import estimated

        cost, t = estimated(r), r.target
        if cost is None or t is None:
            return 0
        return cost.largest_buffers + min(cost.parameter_bytes, machine(t).page_ring)

    @staticmethod
    def instead(model: ModelGraph, excess: int) -> str:
        """What would take so many bytes less."""
        attention = [x.attributes for x in model if "left" in x.attributes]
        a_frame = sum(a["heads"] * a["head"] for a in attention)
        left = attention[0]["left"] - -(-excess // (a_frame * attention[0]["chunk"])) * attention[0][
            "chunk"] if attention else 0
        return f"`left={left}`, or a smaller model" if left > 0 else "a shorter left context, or a smaller model"


class PinOverflow(Rule):
    """More weights are pinned than the target has room for.

    Pinned weights stay in SRAM as the multipliers read them, a byte each whatever their width; the target says how much
    they may take. Pin fewer, or prune whole words.
    """

    code = "pin-overflow"
    example = example("layers encoder.lstm[*].** { pin always }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.target is None or r.model is None or r.sites is None:
            return
        from nnac.language.rules.budget import estimated

        found = [(d, s) for d, s, v in by_entry(r, "pin", r.sites.kernels) if v == "always" and d is not None]
        cost = estimated(r) if found else None
        if cost is None:
            return
        paths = [r.sites.paths[i] for _, sites in found for i in sites if r.sites.kernels >> i & 1]
        size = sum(cost.kernels[p].held_bytes for p in paths)
        # words that turn out dead take no room
        pruned = any(r.values["sparsity"][i] is not None for _, sites in found for i in sites)
        if size > r.target.pinned:
            yield problem(self.code, place(r, found[0][0]),
                          f"{size:,} bytes are pinned, but `{r.target.name}` has room for {r.target.pinned:,}",
                          where(r, found[0][1]), "pin fewer kernels: they are held decoded, a byte a weight",
                          severity="warning" if pruned else "error")


class UnevenGroup(Rule):
    """A group size that does not divide the rows of a kernel.

    The last group of each row is shorter; the machine pads it.  Choose a divisor, best a multiple of 16.
    """

    code = "uneven-group"
    example = example("layers joint.output.** { weights int4 per_group(100) }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        assert r.sites is not None and r.model is not None
        for decided, sites, value in by_entry(r, "weights", r.sites.leaves):
            size = value.granularity.size
            if decided is None or not size:
                continue
            uneven = [i for i in sites if self.columns(r, i) % size]
            if uneven:
                columns = self.columns(r, uneven[0])
                fits = max((d for d in range(16, min(size, columns) + 1) if columns % d == 0), default=columns)
                yield problem(self.code, place(r, decided), f"groups of {size} do not divide rows of {columns}",
                              where(r, uneven),
                              f"`per_group({fits})` would", severity="warning")

    @staticmethod
    def columns(r: Resolution, i: int) -> int:
        assert r.model is not None and r.sites is not None
        return r.model.kernels[r.sites.paths[i].partition(".gate.")[0]].cols


class Narrow(Rule):
    """A cell state whose range is too small to train with.

    LSTM cells of trained RNN-Ts reach +-8 and beyond; a cell that saturates below +-2 hardly remembers.  Give it fewer
    fractional bits, or let calibration choose them: `cell int16 auto`.
    """

    code = "narrow-cell"
    example = example("layers encoder.lstm[*] { cell int16 fraction(15) }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        for decided, sites, value in by_entry(r, "cell"):
            if decided is None or value.fraction is None:
                continue
            reach = 2.0 ** (value.bits - 1 - value.fraction)
            if reach < 2:
                keep = value.bits - 4
                yield problem(self.code, place(r, decided), f"this cell state saturates at +-{reach:g}",
                              where(r, sites),
                              f"`fraction({keep})` reaches +-{2.0 ** (value.bits - 1 - keep):g}", severity="warning")
