"""The plan: a policy resolved on a model for a target.  What every later stage reads.

One ``SitePlan`` per site (layer, kernel, gate), each setting typed, each with the chain of rules that made it
(``plan.origin``). A plan is frozen, prints, and round-trips through JSON (``to_json``, ``from_json``; schema in
``plan_schema.json``), so that checkpoints, programs, sweeps and trackers can carry it.  ``digest`` names it: equal
plans, equal digests, on any machine.

    plan["encoder.lstm[0].input"].weights        Weights(bits=8, granularity=channel, method=minmax)
    plan.gates("encoder.lstm[0].input")          the four gate sites, when a policy goes down to gates
    plan["encoder.lstm[0]"].activations          Activations(bits=8, method=percentile(99.99))
    plan.origin("encoder.lstm[0].input", "weights")   (Origin(specs/rnnt_int8.nnac:12:5 …), …): the last one won
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

from attrs import asdict, evolve, field, frozen

from nnac.compression.base import Method, from_dict
from nnac.model.graph import Layer, ModelGraph, build, packaged
from nnac.target import Target
from nnac.units import UnitError

VERSION = 1
KERNEL_SETTINGS = ("weights", "round", "regularise", "harden", "sparsity", "codec", "pin")
LAYER_SETTINGS = ("activations", "hidden", "cell", "bias", "accumulator", "accumulate", "place")
ENTRY_SETTINGS = ("frames",)
AUTO = "auto"                      # of a cell: its fraction is chosen by calibration
SETTINGS = KERNEL_SETTINGS + LAYER_SETTINGS + ENTRY_SETTINGS


class PlanError(ValueError):
    """A plan file that is not one: wrong version, missing or ill-typed parts.  The message says where."""


@frozen
class Width:
    """``int8`` is Width(8), ``fp16`` is Width(16, "fp"), ``float`` is Width(32, "fp")."""

    bits: int
    number: Literal["int", "fp"] = "int"

    def __str__(self) -> str:
        return "float" if (self.bits, self.number) == (32, "fp") else f"{self.number}{self.bits}"

    @classmethod
    def parse(cls, text: str) -> Width:
        """From ``int8``, ``fp16``, ``float``.  ValueError otherwise."""
        if text == "float":
            return cls(32, "fp")
        if text == "fp16":
            return cls(16, "fp")
        if text.startswith("int") and text[3:].isdigit():
            return cls(int(text[3:]))
        raise ValueError(f"no width is called {text!r}")


@frozen
class Granularity:
    """What shares a scale (or a codebook): the ``tensor``, each output ``channel``, each ``gate``, each ``group`` of
    ``size`` in a row."""

    kind: Literal["tensor", "channel", "gate", "group"] = "channel"
    size: int | None = None

    def __str__(self) -> str:
        return f"per_group({self.size})" if self.kind == "group" else f"per_{self.kind}"


@frozen
class Weights:
    """How a kernel's or gate's weights are held.  ``width`` is that of the stored index or integer; a codebook's
    entries are int8."""

    width: Width
    granularity: Granularity
    method: Method | None              # None: plain floating point

    @property
    def bits(self) -> int:
        return self.width.bits

    @property
    def multiplied_bits(self) -> int:
        """Bits of the integer that meets an activation: int8 out of a snapped codebook, and where the groups of a row
        differ in scale, for the machine knows one scale a row."""
        if self.method is None or not type(self.method).codebook:
            return max(8, self.bits) if self.granularity.kind == "group" else self.bits
        return {"int8": 8, "int16": 16}[self.method.snap]  # type: ignore[attr-defined]

    def __str__(self) -> str:
        if self.method is None:
            return str(self.width)
        own = self.method.takes_bits() or type(self.method).fixed_bits is not None
        return f"{'' if own else f'{self.width} '}{self.granularity} {self.method}"


@frozen
class Activations:
    """How a layer's output (or its hidden state) is held."""

    width: Width
    method: Method | None

    @property
    def bits(self) -> int:
        return self.width.bits

    def __str__(self) -> str:
        return f"{self.width} {self.method}" if self.method else str(self.width)


@frozen
class Cell:
    """A recurrent cell state: an integer of ``width`` with ``fraction`` fractional bits, so a range of +-2^(bits - 1 -
    fraction).  None: `auto`, calibration chooses them (`nnac.train.ops._cell`)."""

    width: Width
    fraction: int | None

    @property
    def bits(self) -> int:
        return self.width.bits

    def __str__(self) -> str:
        return f"{self.width} {'auto' if self.fraction is None else f'fraction({self.fraction})'}"


@frozen
class SitePlan:
    """Everything decided at one site.  A kernel or gate has the kernel settings, a layer the layer settings; the others
    are None.

    codec: auto or a name of ``target.CODECS`` · pin: auto | always | never · place: nna | cpu · accumulate: acc32 |
    sum16 frames: encoder steps computed together (frame batching of the input-side product), at layers of an entry
    point
    """

    path: str
    kind: Literal["layer", "kernel", "gate"]
    weights: Weights | None = None
    round: Method | None = None
    regularise: Method | None = None
    harden: Method | None = None
    sparsity: Method | None = None
    codec: str | None = None
    pin: str | None = None
    activations: Activations | None = None
    hidden: Activations | None = None
    cell: Cell | None = None
    bias: Width | None = None
    accumulator: Width | None = None
    accumulate: str | None = None
    place: str | None = None
    frames: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Setting -> value, those that this site has."""
        return {s: v for s in SETTINGS if (v := getattr(self, s)) is not None}


@frozen
class Origin:
    """Where a value was written.  ``file`` is None for nnac's own defaults and for values from the command line
    (``rule`` says which)."""

    file: str | None
    line: int
    column: int
    rule: str                          # the selector of the rule, `layers encoder.**`, or `default`
    text: str                          # the setting as written, `weights int8 per_channel`

    def __str__(self) -> str:
        return (f"{self.file}:{self.line}:{self.column}  {self.rule} {{ {self.text} }}" if self.file
                else f"{self.rule}  {self.text}")


@frozen
class Training:
    """What schedules are measured against.  ``steps`` None: not said."""

    steps: int | None = None
    epochs: float | None = None
    steps_per_epoch: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup: int | None = None          # steps
    seed: int | None = None

    @property
    def total(self) -> int | None:
        """All steps of the training, from ``steps`` or from ``epochs`` x ``steps_per_epoch``; None if they are not
        said."""
        if self.steps is not None:
            return self.steps
        return (round(self.epochs * self.steps_per_epoch) if self.epochs is not None
                and self.steps_per_epoch is not None else None)


@frozen
class Decode:
    """How a program's outputs become words, unless the command line says otherwise: the settings of
    `nnac.decode.search.beam` (or greedy), and of fusion with the language models beside the recogniser
    (`nnac.decode.fusion`).

    fusion          none | shallow | density_ratio | internal
    weight          of the target's model                   less  taken off, of the other
    target, source  files of the models; "": given with the command that compiles
    """

    search: str = "greedy"
    beam: int = 8
    max_symbols: int = 6
    delta: float = 5.0
    blank_penalty: float = 0.0
    length_bonus: float = 0.0
    fusion: str = "none"
    weight: float = 0.0
    less: float = 0.0
    target: str = ""
    source: str = ""

    @property
    def hypotheses(self) -> int:
        """How many are held at once: entries that each of them runs take so many together."""
        return 1 if self.search == "greedy" else self.beam

    @property
    def languages(self) -> tuple[str, ...]:
        """The language models that fusion asks, by their names beside the recogniser (`nnac.companions.NAMES`)."""
        return {"none": (), "density_ratio": ("lm", "source_lm")}.get(self.fusion, ("lm",))

    @property
    def files(self) -> dict[str, str]:
        """Those of them that the policy says the files of."""
        written = dict(lm=self.target, source_lm=self.source)
        return {name: written[name] for name in self.languages if written[name]}

    @property
    def named(self) -> Decode:
        """With the names of its files alone, for a program that carries what is in them."""
        return evolve(self, target=os.path.basename(self.target), source=os.path.basename(self.source))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; files only where there are any."""
        return {k: v for k, v in asdict(self).items() if v or k not in ("target", "source")}

    def __str__(self) -> str:
        """As a policy says it."""
        wide = f"({self.beam})" if self.hypotheses > 1 else ""
        weights = ", ".join(f"{w:g}" for w in (self.weight, self.less) if w)
        return f"{self.search}{wide}" + (f", fusion {self.fusion}({weights})" if self.fusion != "none" else "")


@frozen
class Budget:
    """An upper bound: ``quantity`` (weights, sram: bytes; latency, upl(p90) …: seconds; cycles; bits_per_weight; rtf)
    must not exceed ``limit``."""

    quantity: str
    limit: float
    text: str                          # as written: `weights <= 1.2 MiB`


@frozen
class ModelReference:
    """The model that was planned: a builder's name and its arguments; ``graph`` where nnac itself has no such builder
    (`nnac.prepare`)."""

    builder: str
    arguments: dict[str, Any] = field(hash=False)
    graph: ModelGraph | None = field(default=None, hash=False, repr=False)

    @classmethod
    def of(cls, model: ModelGraph, arguments: dict[str, Any]) -> ModelReference:
        """How a plan refers to ``model``."""
        return cls(model.name, arguments, None if packaged(model.name) else model)

    def build(self) -> ModelGraph:
        """The model graph.  ModelError: no builder of that name."""
        return build(self.builder, **self.arguments) if self.graph is None else self.graph

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a graph that no builder builds anew is part of it."""
        own = {} if self.graph is None else {"graph": self.graph.to_json()}
        return {"builder": self.builder, "arguments": dict(self.arguments)} | own

    def __str__(self) -> str:
        shown = (f'{k}="{v}"' if isinstance(v, str) else f"{k}={str(v).lower() if isinstance(v, bool) else v}"
                 for k, v in self.arguments.items())
        return f"{self.builder}({', '.join(shown)})"


# joules (MAC, byte of SRAM, of DRAM, vector) that targets stated before energies were derived: plans keep their names
FORMER = {
    "edge": ("1/5000000000000", "1/1000000000000", "1/50000000000", "1/2000000000000"),
    "rapid": ("3/50000000000000", "1/2000000000000", "3/200000000000", "1/5000000000000"),
}


@frozen(eq=False)
class Plan:
    """See the module.  Equality and hash are those of ``digest``: what is decided, not where it was written."""

    READS_ITSELF: ClassVar[bool] = True    # its JSON is written for people, not field by field

    name: str
    model: ModelReference
    target: Target
    sites: tuple[SitePlan, ...]
    training: Training = Training()
    budgets: tuple[Budget, ...] = ()
    # the `let`s, after overrides: plain values or their printed form
    parameters: dict[str, Any] = field(factory=dict)
    origins: Mapping[tuple[str, str], tuple[Origin, ...]] = field(factory=dict)
    decode: Decode | None = None       # not in the digest: a search changes no integer of the model

    def __getitem__(self, path: str) -> SitePlan:
        return self.by_path[path]

    def __contains__(self, path: object) -> bool:
        return path in self.by_path

    def __iter__(self) -> Iterator[SitePlan]:
        return iter(self.sites)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def by_path(self) -> dict[str, SitePlan]:
        return {s.path: s for s in self.sites}

    @cached_property
    def graph(self) -> ModelGraph:
        """The model graph that was planned, built anew where its builder's name and arguments are enough."""
        return self.model.build()

    def gates(self, kernel: str) -> tuple[SitePlan, ...]:
        """The gate sites of a kernel, in row order; the kernel's own site alone if it has no gates."""
        found = tuple(s for s in self.sites if s.kind == "gate" and s.path.startswith(f"{kernel}.gate."))
        return found or (self[kernel],)

    def uniform(self, kernel: str) -> bool:
        """Whether all gates of a kernel are settled like the kernel itself."""
        own = self[kernel].settings
        return all(g.settings == own for g in self.gates(kernel))

    def kernels(self, layer: str | Layer) -> tuple[SitePlan, ...]:
        """The kernel sites of a layer, in the model's order."""
        owner = layer if isinstance(layer, Layer) else self.graph.by_path[layer]
        return tuple(self[k.path] for k in owner.kernels)

    def frames(self, entry: str) -> int:
        """How many steps of an entry point are computed together."""
        return max((self[layer.path].frames or 1 for layer in self.graph if layer.entry == entry), default=1)

    @property
    def hypotheses(self) -> int:
        """How many hypotheses the policy's search holds; 1 where it says nothing of one."""
        return 1 if self.decode is None else self.decode.hypotheses

    def origin(self, site: str, setting: str) -> tuple[Origin, ...]:
        """The rules that said something about ``setting`` of ``site``, in order; the last one won.  The first may be
        nnac's default."""
        return self.origins.get((site, setting), ())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON without origins, as 64 hex digits.

        A target with every operator has no list of them there: an operator that nnac learns later makes no other plan
        of what was trained before.  Energies that are derived change no integer and no cycle: in their place stands
        what plans said while targets stated them.
        """
        import hashlib  # 7 ms that lint does not need

        from nnac.ops import shipped

        data = self.to_json(origins=False)
        if {*shipped()} <= {*self.target.operators}:
            del data["target"]["operators"]
        if self.target.energy.process:
            data["target"]["energy"] = dict(zip(("mac", "sram", "dram", "vector"), FORMER.get(
                self.target.name, FORMER["edge"]), strict=True))
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self, *, origins: bool = True) -> dict[str, Any]:
        """Plain JSON (dict of str, int, float, bool, None, lists), in a fixed order."""
        data: dict[str, Any] = {
            "nnac_plan": VERSION, "name": self.name,
            "model": self.model.to_json(),
            "target": self.target.to_json(),
            "training": {a.name: getattr(self.training, a.name) for a in Training.__attrs_attrs__},
                                # type: ignore[attr-defined]
            "budgets": [{"quantity": b.quantity, "limit": b.limit, "text": b.text} for b in self.budgets],
            "parameters": {k: v if isinstance(v, (bool, int, float, str)) else str(v)
                           for k, v in self.parameters.items()},
            "sites": [{"path": s.path, "kind": s.kind} | {k: _plain(v) for k, v in s.settings.items()}
                      for s in self.sites],
        }
        if origins:
            data["origins"] = _grouped(self.origins)
            if self.decode is not None:
                data["decode"] = self.decode.to_json()
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The plan that ``to_json`` described.  PlanError if it is not one."""
        if not isinstance(data, dict) or data.get("nnac_plan") != VERSION:
            raise PlanError(f"not an nnac plan of version {VERSION}")
        from nnac.checked import fitting

        try:
            return fitting(cls(
                data["name"], _model(data["model"]), Target.from_json(data["target"]),
                tuple(_site(s) for s in data["sites"]), Training(**data["training"]),
                               tuple(Budget(**b) for b in data["budgets"]),
                dict(data["parameters"]),
                {(site, o["setting"]): tuple(Origin(*c) for c in o["chain"])
                 for o in data.get("origins", ()) for site in o["sites"]},
                Decode(**data["decode"]) if "decode" in data else None))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
            raise PlanError(f"not a valid nnac plan: {type(e).__name__}: {e}") from e

    def __str__(self) -> str:
        lines = [f"plan {self.name}  {self.model} on {self.target.name}"]
        for s in self.sites:
            if s.kind == "gate" and s.settings == self[s.path.rpartition(".gate.")[0]].settings:
                continue
            depth = {"layer": 1, "kernel": 2, "gate": 3}[s.kind]
            lines.append(f"{'  ' * depth}{s.path:<{40 - 2 * depth}}  " +
                         "; ".join(f"{k} {v}" for k, v in s.settings.items()))
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, Weights):
        return {"width": str(value.width), "granularity": str(value.granularity), "method": value.method
                and value.method.as_dict()}
    if isinstance(value, Activations):
        return {"width": str(value.width), "method": value.method and value.method.as_dict()}
    if isinstance(value, Cell):
        return {"width": str(value.width), "fraction": AUTO if value.fraction is None else value.fraction}
    if isinstance(value, Width):
        return str(value)
    return value.as_dict() if isinstance(value, Method) else value


def _grouped(origins: Mapping[tuple[str, str], tuple[Origin, ...]]) -> list[dict[str, Any]]:
    """Sites that share a chain are written together: files stay small however many gates there are."""
    groups: dict[tuple[str, tuple[Origin, ...]], list[str]] = {}
    for (site, setting), chain in origins.items():
        groups.setdefault((setting, chain), []).append(site)
    return [{"setting": s, "sites": sites, "chain": [[o.file, o.line, o.column, o.rule, o.text] for o in chain]}
            for (s, chain), sites in groups.items()]


def _model(data: dict[str, Any]) -> ModelReference:
    graph = ModelGraph.from_json(data["graph"]) if "graph" in data else None
    return ModelReference(data["builder"], dict(data["arguments"]), graph)


def _granularity(text: str) -> Granularity:
    kind, _, size = text.removeprefix("per_").rstrip(")").partition("(")
    if kind not in ("tensor", "channel", "gate", "group"):
        raise ValueError(f"no granularity is called {text!r}")
    return Granularity(kind, int(size) if size else None)  # type: ignore[arg-type]


def _site(data: dict[str, Any]) -> SitePlan:
    d = dict(data)
    method = lambda m: None if m is None else from_dict(m)  # noqa: E731
    if "weights" in d:
        w = d["weights"]
        d["weights"] = Weights(Width.parse(w["width"]), _granularity(w["granularity"]), method(w["method"]))
    for name in ("activations", "hidden"):
        if name in d:
            d[name] = Activations(Width.parse(d[name]["width"]), method(d[name]["method"]))
    for name in ("round", "regularise", "harden", "sparsity"):
        if name in d:
            d[name] = method(d[name])
    if "cell" in d:
        fraction = d["cell"]["fraction"]
        d["cell"] = Cell(Width.parse(d["cell"]["width"]), None if fraction == AUTO else int(fraction))
    for name in ("bias", "accumulator"):
        if name in d:
            d[name] = Width.parse(d[name])
    return SitePlan(**d)


def load_plan(text: str | bytes) -> Plan:
    """A plan from JSON text.  PlanError if it is not one."""
    try:
        return Plan.from_json(json.loads(text))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise PlanError(f"not an nnac plan: {e}") from e


def schema_text() -> str:
    """The JSON Schema of ``to_json``, as published."""
    from pathlib import Path

    return (Path(__file__).parent / "plan_schema.json").read_text(encoding="utf-8")


__all__ = ["Activations", "Budget", "Cell", "Granularity", "ModelReference", "Origin", "Plan", "PlanError", "SitePlan",
           "Training",
           "UnitError", "Weights", "Width", "load_plan", "schema_text"]
