"""A first policy for a model: what every layer begins with, and each layer's path, commented, to be changed."""

from __future__ import annotations

from nnac.model.graph import Layer, ModelGraph


def first_policy(graph: ModelGraph, model: str, target: str, name: str = "first") -> str:
    """The text of a policy that lints clean: eight bits everywhere, and every layer with what it is.

    model  as the policy calls it: ``saved("mine.nnc")``, ``rnnt(size="small")``, ``module``
    """
    kinds = {layer.operator for layer in graph}
    kernels = [k for layer in graph for k in layer.kernels]
    settings = [("weights", "int8 per_channel", "one scale a row; other methods: nnac explain --methods")] if kernels \
        else []
    settings.append(("activations", "int8 percentile(99.99)", "scales from data, by nnac train or calibrate()"))
    if any("cell" in s for k in kinds if k.recurrent for s in _states(graph, k.kind)):
        settings.append(("cell", "int16 auto", "of LSTMs: calibration chooses the fraction bits"))
    width = max(len(s) + len(v) for s, v, _ in settings) + 2
    lines = [f"# A first policy for {graph.weights:,} weights in {len(graph.layers)} layers.", "# Check it: nnac lint "
             "FILE.  See what it decides: nnac explain FILE LAYER.", "", f'import "targets/{target}.nnac"', "",
             f"policy {name} {{", f"  model  {model}", f"  target {target}", "", "  layers ** {"]
    lines += [f"    {s} {v}".ljust(width + 6) + f"# {why}" for s, v, why in settings]
    lines += ["  }", "", "  # Every layer by its path; later rules refine earlier ones. To say more of one, take the"
              " # away."]
    for entry in graph.entries:
        lines += ["", f"  # {entry.name}: {_rhythm(entry.per_frame, entry.per_label)}"]
        lines += [f"  # layers {layer.path} {{ {_suggestion(layer)} }}".ljust(76) + f"  # {_what(layer)}"
                  for layer in graph if layer.entry == entry.name]
    return "\n".join([*lines, "}", ""])


def _states(graph: ModelGraph, kind: str) -> list[str]:
    from nnac.formats import Precision

    layer = next(x for x in graph if x.kind == kind)
    return [s.name.rpartition(".")[2] for s in layer.operator.states(layer, Precision())]


def _rhythm(per_frame: int, per_label: int) -> str:
    counts = (per_frame, "frame"), (per_label, "label")
    parts = [f"{n} step{'s' if n > 1 else ''} a {what}" for n, what in counts if n]
    return " and ".join(parts) or "on its own"


def _suggestion(layer: Layer) -> str:
    return "weights int4 per_channel" if layer.kernels else "activations int16 percentile(99.99)"


def _what(layer: Layer) -> str:
    said = f"{layer.kind}, {layer.width} wide"
    return f"{said}, {layer.weights:,} weights" if layer.weights else said
