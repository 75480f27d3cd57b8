"""Rules about what the operators take: methods that no operator can hold, and methods that decide nothing where
arithmetic decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nnac.diagnostics import Diagnostic, Severity
from nnac.language.rules.base import Resolution, Rule, by_entry, example, place, problem, where
from nnac.language.widths import reader_of, value_bits
from nnac.model.graph import Layer
from nnac.ops import may_have_zero_point

Found = tuple[str, str, Severity] | None                                      # message, help


class UnsuitableMethod(Rule):
    """A method in a place whose operators cannot hold what it makes.

    Integers have an exact zero, so a grid without one is for weights below 8 bits only; clips that differ (PACT,
    two-sided PACT) need a zero point, which linear layers, layer norms and recurrent layers fold in and nothing else
    does; recurrent kernels and embeddings are int8 (or narrower), not int16.  Training or the compiler would stop
    there.  Choose a symmetric method, or int8.
    """

    code = "unsuitable-method"
    example = example("layers joint.encoder { activations int8 pact_two_sided }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        for setting, why in (("activations", self.activations), ("hidden", self.activations),
                             ("weights", self.weights)):
            mask = r.sites.leaves if setting == "weights" else r.sites.layers
            for decided, sites, _ in by_entry(r, setting, mask):
                if decided is None:
                    continue
                found: dict[tuple[str, str, Severity], list[int]] = {}
                for i in sites:
                    if setting == "activations" and i in r.winners["hidden"]:
                        # `hidden` decides there, and is asked itself
                        continue
                    if (said := why(r, r.model.layer_of(r.sites.paths[i]), decided[1].value)) is not None:
                        found.setdefault(said, []).append(i)
                for (message, help, severity), at in found.items():
                    yield problem(self.code, place(r, decided), message, where(r, at), help, severity=severity)

    @staticmethod
    def activations(r: Resolution, layer: Layer, value: Any) -> Found:
        how = value.method
        assert r.model is not None
        if layer.operator.view and layer.inputs[0] in r.model.by_path:
            # it passes on what it is given: `width-not-used` says so
            return None
        if how is None:
            return None
        if getattr(how, "zero_aligned", True) is False:
            return (f"`{how.keyword}(zero_aligned=false)` has no level at zero, and the machine's integers have",
                    "write `zero_aligned=true`", "error")
        if how.sides != "both" and not zero_point_fits(r, layer):
            return (f"`{how.keyword}` needs a zero point, which a `{layer.kind}` layer cannot have here",
                    "use `pact_symmetric` or `lsq`", "error")
        if how.sides == "upper":
            return (f"`{how.keyword}` makes every negative value zero, and a `{layer.kind}` layer has them",
                    "use `pact_symmetric`, `pact_two_sided`", "warning")
        return None

    @staticmethod
    def weights(r: Resolution, layer: Layer, value: Any) -> Found:
        if value.method is None:
            return None
        widest = layer.operator.weight_bits
        if value.multiplied_bits > widest and layer.recurrent:
            return (f"the kernels of a `{layer.kind}` layer hold int{widest} at most, not int{value.multiplied_bits}",
                    f"write `int{widest}`, or `snap=int{widest}`", "error")
        if value.bits >= 8 and getattr(value.method, "zero_aligned", True) is False:
            return (f"{1 << value.bits} levels without a zero do not fit int8",
                    "write `zero_aligned=true`, or fewer bits", "error")
        return None


class CoarseProbabilities(Rule):
    """Probabilities of so many frames in 8 bits: most of them round to nothing.

    The 127 steps of an int8 are shared by all frames that a query hears.  For contexts of up to 32 frames and a chunk
    that is enough (the error of a weighted sum stays below two steps of its int8); beyond, say int16, which costs the
    weighted sum twice its cycles.
    """

    code = "coarse-probabilities"
    example = example("layers encoder.block[*].attention.probabilities { activations int8 }", (
        'import "targets/edge.nnac"\n\npolicy example {\n  model   conformer(left=48, positions=64)\n  target  edge\n'))

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        for decided, sites, value in by_entry(r, "activations", r.sites.layers):
            layers = [r.model.layer_of(r.sites.paths[i]) for i in sites]
            coarse = [x for x in layers if value.bits < x.operator.least_bits(x.attributes, x.width)]
            if coarse:
                first = coarse[0]
                spread, bits = (first.width // first.attributes.get("groups", 1),
                                first.operator.least_bits(first.attributes, first.width))
                yield problem(self.code, place(r, decided),
                              f"{(1 << value.bits - 1) - 1} steps of probability for {spread} frames",
                              where(r, [r.sites.number[x.path] for x in coarse]),
                              f"`activations int{bits}`, or a shorter context", severity="warning")


class WideInput(Rule):
    """An operator that takes int8 is given more.

    Queries, keys and values, and what a depthwise convolution reads, are int8: they lie in rings of bytes, and the
    machine multiplies bytes there.  Training would stop.  Say int8 for the layer that makes them.
    """

    code = "wide-input"
    example = example("layers encoder.block[*].attention.{query, key} { activations int16 }", (
        'import "targets/edge.nnac"\n\npolicy example {\n  model   conformer(size="small")\n  target  edge\n'))

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        number, groups = r.sites.number, dict[int, tuple[Any, list[Layer], Layer]]()
        for layer in r.model:
            for k in layer.operator.narrow:
                name = layer.inputs[k]
                if value_bits(r.model, r.values, number, name) <= 8:
                    continue
                source = r.model.by_path.get(name) or reader_of(r.model, name)
                found = r.winners["activations"].get(number[source.path])
                decided = (r.rules[found[0]], found[1]) if found else None
                groups.setdefault(id(found[1]) if found else 0, (decided, [], layer))[1].append(source)
        for decided, sources, reader in groups.values():
            yield problem(self.code, place(r, decided), f"`{reader.path}` takes int8",
                          where(r, [number[x.path] for x in dict.fromkeys(sources)]), "`activations int8` there")


def zero_point_fits(r: Resolution, layer: Layer) -> bool:
    """Whether a layer's output, or the input that it is given (a stack's, at the model's entry), may have a zero
    point."""
    model = r.model
    assert model is not None
    return may_have_zero_point(layer.path, layer.kind, lambda value: [(reader.kind, reader.path) for reader in model
                                                                      if value in reader.inputs])


class MethodNotUsed(Rule):
    """A method where arithmetic, not data, decides the clip.

    The hidden state of an LSTM or GRU and the output of a table stay within [-1, 1], so their largest integer stands
    for 1, whatever calibration would find; a hidden state's clip can be said (`fixed`) or learned (`lsq`,
    `pact_symmetric`), a table's cannot.  Only rules written for such layers alone are reported.
    """

    code = "method-not-used"
    example = example("layers encoder.lstm[*] { hidden int8 percentile(99) }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.model is None or r.sites is None:
            return
        for setting in ("activations", "hidden"):
            for decided, sites, _ in by_entry(r, setting, r.sites.layers):
                if decided is None or (setting == "activations" and any(i in r.winners["hidden"] for i in sites)):
                    continue
                value = decided[1].value
                layers = [r.model.layer_of(p) for p in r.sites.named(decided[1].mask)]
                if all(self.unused(layer, value.method) for layer in layers):
                    recurrent = layers[0].recurrent
                    yield problem(self.code, place(r, decided),
                                  f"`{value.method.keyword}` decides nothing here: the largest integer stands for 1",
                                  where(r, sites),
                        "say `fixed(1)`, or learn the clip: `lsq`, `pact_symmetric(clip=none)`" if recurrent else
                                  "leave the method out", severity="warning")

    @staticmethod
    def unused(layer: Layer, how: Any) -> bool:
        if layer.recurrent:
            return how.from_data and how.keyword != "minmax" and layer.operator.bounded(layer.attributes)
        return layer.operator.bounded(layer.attributes) and how.keyword != "minmax" and not (how.keyword == "fixed"
            and how.clip == 1.0)


__all__ = ["MethodNotUsed", "UnsuitableMethod", "zero_point_fits"]
