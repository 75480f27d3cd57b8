"""The plan that a resolution's values make, and where each of its settings came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nnac.language import settings
from nnac.language import syntax as s
from nnac.language.parameters import plain
from nnac.language.resolution import CompiledRule, Entry, Resolution
from nnac.language.values import UNKNOWN
from nnac.plan import ENTRY_SETTINGS, KERNEL_SETTINGS, LAYER_SETTINGS, ModelReference, Origin, Plan, SitePlan


def plan_of(r: Resolution) -> Plan:
    """The plan that a resolution's values make; model, target and sites must be there."""
    sites, model, target, statement = r.sites, r.model, r.target, r.model_statement
    assert sites is not None and model is not None and target is not None and statement is not None
    out = []
    for i, path in enumerate(sites.paths):
        kind = "layer" if sites.layers >> i & 1 else "kernel" if sites.kernels >> i & 1 else "gate"
        names = LAYER_SETTINGS + ENTRY_SETTINGS if kind == "layer" else KERNEL_SETTINGS
        values = {n: r.values[n][i] for n in names if i in r.values[n]}
        out.append(SitePlan(path, kind, **values))  # type: ignore[arg-type]
    call = statement.node.call
    arguments = {k: v for k, v in model.arguments.items() if isinstance(call, s.Call) or k == "size"}
    parameters = {k: p if (p := plain(v)) is not UNKNOWN else str(v) for k, v in r.names.items()}
    return Plan(r.name, ModelReference.of(model, arguments), target, tuple(out), r.training,
                tuple(b for b, _, _ in r.budgets),
                parameters,
                Origins(r), decode=r.decode)


class Origins(Mapping[tuple[str, str], tuple[Origin, ...]]):
    """(site, setting) -> the rules that said something about it, in order; worked out when asked for."""

    def __init__(self, r: Resolution) -> None:
        self.r = r
        assert r.sites is not None
        self.number = {p: i for i, p in enumerate(r.sites.paths)}
        self.made: dict[int, Origin] = {}

    def __getitem__(self, key: tuple[str, str]) -> tuple[Origin, ...]:
        site, setting = key
        i = self.number[site]
        if not self.r.domains[setting] >> i & 1:
            raise KeyError(key)
        chain = [Origin(None, 0, 0, "default", settings.spelled(setting, settings.default(setting)))]
        if setting == "hidden":
            chain = [Origin(None, 0, 0, "default", "hidden follows activations"), *self._said("activations", i)]
        if setting == "accumulator":
            chain = [Origin(None, 0, 0, "default", "accumulator as wide as its operands ask")]
        if setting == "activations" and i in self.r.winners["hidden"]:
            # a recurrent layer gives its hidden state
            return (*chain, *self._said("activations", i), *self._said("hidden", i))
        return (*chain, *self._said(setting, i))

    def _said(self, setting: str, i: int) -> Iterator[Origin]:
        for rule in self.r.rules:
            if rule.mask >> i & 1:
                for entry in rule.entries:
                    if entry.name == setting and entry.mask >> i & 1:
                        yield self._origin(rule, entry)

    def _origin(self, rule: CompiledRule, entry: Entry) -> Origin:
        known = self.made.get(id(entry))
        if known is None:
            span = rule.statement.span(entry.setting)
            line, column = span.source.position(span.start)
            known = Origin(span.source.name, line, column, rule.selectors, " ".join(span.text.split()))
            self.made[id(entry)] = known
        return known

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for setting, domain in self.r.domains.items():
            assert self.r.sites is not None
            for path in self.r.sites.named(domain):
                yield path, setting

    def __len__(self) -> int:
        return sum(d.bit_count() for d in self.r.domains.values())
