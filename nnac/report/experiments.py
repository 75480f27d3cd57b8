"""Which runs a comparison is made of, and which claims it tests: a TOML file, checked before anything runs.

    title = "Compression of a streaming RNN-T"
    splits = ["sent", "voice"]                   # of the corpus: word errors are counted on these

    [[table]]
    title = "GQ"
    note = "what a reader should know"

    [[table.row]]
    name = "gq5"                                 # file names; unique
    label = "GQ, 5 bits"
    policy = "gq.nnac"                           # beside this file, or in specs/; none: the float network
    define = { bits = 5 }                        # -D of the policy
    seeds = 3                                    # default 1
    steps = 400                                  # instead of the policy's
    float = "large"                              # which float network (`--float large=FILE`); default: the one given without a name
    quick = true                                 # part of the small comparison

    [[claim]]
    paper = "GQ, arXiv 2210.09188"
    text = "5 bits lose nothing against 8"
    row = "gq5"
    against = "int8"
    measure = "wer_points"                       # see MEASURES
    at_most = 0.2                                # and/or at_least; or instead of both, where a method is said to help:
    indifference = 0.2                           # better | worse | no difference beyond 0.2
    reason = "why ours differs"                  # shown where ours does not hold
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from attrs.validators import ge, gt, optional

from nnac.errors import UserError

MEASURES = {
    "wer_points": "word error rate, difference in points",
    "wer_relative": "word errors, relative difference in per cent",
    "bytes_relative": "bytes of weights in the program, relative difference in per cent",
    "cycles_relative": "cycles per frame, relative difference in per cent",
    "compression": "bytes of the other (float: 4 a weight) over bytes of this one",
}


class ExperimentError(UserError):
    """An experiments file that cannot be used; one line."""


@frozen
class Row:
    """One way to compress, with its seeds."""

    name: str
    label: str = ""
    policy: str | None = None
    policy_name: str | None = None
    define: dict[str, Any] = field(factory=dict, hash=False)
    seeds: int = field(default=1, validator=ge(1))
    steps: int | None = field(default=None, validator=optional(ge(0)))
    float: str = ""
    quick: bool = False

    @property
    def shown(self) -> str:
        return self.label or self.name


@frozen
class Table:
    title: str
    rows: tuple[Row, ...]
    note: str = ""


@frozen
class Claim:
    """A published relative claim and the bounds within which ours would agree."""

    paper: str
    text: str
    row: str
    against: str
    measure: str
    at_most: float | None = None
    at_least: float | None = None
    reason: str = ""
    indifference: float | None = field(default=None, validator=optional(gt(0)))


@frozen
class Experiments:
    path: Path
    title: str
    splits: tuple[str, ...]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...] = ()
    note: str = ""

    @property
    def rows(self) -> Iterator[Row]:
        return (r for t in self.tables for r in t.rows)

    def quick(self) -> Experiments:
        """The small comparison: the rows marked quick, one seed each, and the claims between them.  Notes and reasons are of the whole one."""
        rows = {r.name for r in self.rows if r.quick}
        tables = (evolve(t, note="", rows=tuple(evolve(r, seeds=1) for r in t.rows if r.quick)) for t in self.tables)
        return evolve(self, title=f"{self.title} (the quick rows, one seed each)", tables=tuple(t for t in tables if t.rows),
                      claims=tuple(evolve(c, reason="") for c in self.claims if {c.row, c.against} <= rows))

    def policy_path(self, row: Row) -> Path | None:
        """The policy file of a row.  ExperimentError if it does not exist."""
        if row.policy is None:
            return None
        places = (self.path.parent / row.policy, Path("specs") / row.policy, Path(row.policy))
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            raise ExperimentError(f"{self.path}: row `{row.name}`: no policy file {row.policy}")
        return found


def _table_of(cls: type, data: Any, where: str, **converted: Any) -> Any:
    """An attrs object from a TOML table.  ExperimentError for unknown or missing keys, or values out of bounds."""
    if not isinstance(data, dict):
        raise ExperimentError(f"{where}: a table is expected")
    known = {a.name: a for a in cls.__attrs_attrs__}  # type: ignore[attr-defined]
    if unknown := set(data) - set(known):
        raise ExperimentError(f"{where}: unknown `{min(unknown)}` (there are: {', '.join(known)})")
    try:
        return cls(**(data | converted))
    except (TypeError, ValueError) as error:
        raise ExperimentError(f"{where}: {error}") from None


def load(path: str | Path) -> Experiments:
    """Read and check an experiments file.  ExperimentError, OSError."""
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: {error}") from None
    tables = []
    for t in data.pop("table", []):
        where = f"{path}: table `{t.get('title', '?')}`"
        rows = tuple(_table_of(Row, r, f"{where}, row `{r.get('name', '?')}`") for r in t.get("row", []))
        tables.append(_table_of(Table, {k: v for k, v in t.items() if k != "row"}, where, rows=rows))
    claims = tuple(_table_of(Claim, c, f"{path}: claim `{c.get('text', '?')}`") for c in data.pop("claim", []))
    splits = tuple(data.pop("splits", ("sent", "voice")))
    made = _table_of(Experiments, data, str(path), path=path, splits=splits, tables=tuple(tables), claims=claims)
    return _checked(made)


def _checked(made: Experiments) -> Experiments:
    names = [r.name for r in made.rows]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ExperimentError(f"{made.path}: row `{name}`: a name is letters, digits and - _ . (it names files)")
        if names.count(name) > 1:
            raise ExperimentError(f"{made.path}: two rows are called `{name}`")
    for claim in made.claims:
        for name in (claim.row, claim.against):
            if name not in names:
                raise ExperimentError(f"{made.path}: claim `{claim.text}`: no row is called `{name}`")
        if claim.measure not in MEASURES:
            raise ExperimentError(f"{made.path}: claim `{claim.text}`: no measure `{claim.measure}` (there are: {', '.join(MEASURES)})")
        bounds = [b for b in (claim.at_most, claim.at_least) if b is not None]
        if bool(bounds) == (claim.indifference is not None):
            raise ExperimentError(f"{made.path}: claim `{claim.text}`: say at_most or at_least, or else indifference")
    return made
