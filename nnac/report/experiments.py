"""Which runs a comparison is made of, and which claims it tests: a TOML file, checked before anything runs.

    title = "Compression of a streaming RNN-T"
    splits = ["sent", "voice"]                   # of the corpus: word errors are counted on these

    [[table]]
    title = "GQ"
    note = "what a reader should know"
    against = "float"                            # the row that the others are compared with (default: the first policy)
    beside = true                                # show what other tables have for as many bytes and cycles

    [[table.row]]
    name = "gq5"                                 # file names; unique
    label = "GQ, 5 bits"
    policy = "gq.nnac"                           # beside this file, or in specs/; none: the float network
    define = { bits = 5 }                        # -D of the policy
    seeds = 3                                    # default 1
    steps = 400                                  # instead of the policy's
    float = "large"
    # which float network (`--float large=FILE`); default: the one given without a name
    language = "fusion.nnac"                     # with [search]: the policy of its language models, found as `policy`
    quick = true                                 # part of the small comparison

    [search]                                     # every run is also heard with beam search and language models
    domain = "home"                              # a split; CORPUS/home.txt is what the target's language model knows
    source = "train"                             # CORPUS/train.txt: what the other one knows
    beams = [1, 2, 4, 8, 16]                     # on the domain; the last of `fusions` is what a claim is about
    fusions = ["none", "density_ratio"]          # weights of each run, found on `home_dev`, all on one grid

    [[claim]]
    paper = "GQ, arXiv 2210.09188"
    text = "5 bits lose nothing against 8"
    row = "gq5"
    against = "int8"
    measure = "wer_points"                       # see MEASURES
    beam = 8                                     # of a measure of fusion
    at_most = 0.2                                # and/or at_least; or instead of both, where a method is said to help:
    indifference = 0.2                           # better | worse | no difference beyond 0.2
    reason = "why ours differs"                  # shown where ours does not hold
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from attrs.validators import ge, gt, le, optional

from nnac.checked import Wrong, checked, parse_toml
from nnac.decode.tuning import BONUSES, FUSIONS, SHARES, WEIGHTS
from nnac.errors import UserError
from nnac.files import read_text

MEASURES = {
    "wer_points": "word error rate, difference in points",
    "wer_relative": "word errors, relative difference in per cent",
    "bytes_relative": "bytes of weights in the program, relative difference in per cent",
    "cycles_relative": "cycles per frame, relative difference in per cent",
    "compression": "bytes of the other (float: 4 a weight) over bytes of this one",
    "fusion_points": "word error rate on the domain with fusion, difference in points from without",
    "fusion_kept": "points that fusion saves, in per cent of those that it saves the other",
}
# of several searches of one run, not of a run
FUSION_MEASURES = ("fusion_points", "fusion_kept")


class ExperimentError(UserError):
    """An experiments file that cannot be used; one line."""


_Real = float                  # `Row` has a field of that name


@frozen
class Row:
    """One way to compress, with its seeds."""

    name: str
    label: str = ""
    policy: str | None = None
    policy_name: str | None = None
    define: dict[str, bool | int | _Real | str] = field(factory=dict, hash=False)
    seeds: int = field(default=1, validator=[ge(1), le(1000)])
    steps: int | None = field(default=None, validator=optional(ge(0)))
    float: str = ""
    language: str | None = None
    language_name: str | None = None
    quick: bool = False
    host: bool = False             # its model is timed on the host as well
    weight_only: bool = False      # training sees the machine's weights, and real numbers elsewhere

    @property
    def shown(self) -> str:
        return self.label or self.name


@frozen
class Table:
    """``against``: the row that this table's others are compared with, where it is another than everywhere: models of
    another family, which then stay out of the Pareto front.  ``beside``: what the other tables have for as many bytes,
    and for as many cycles, is shown under it."""

    title: str
    rows: tuple[Row, ...] = field(default=(), metadata={"key": "row"})
    note: str = ""
    against: str = ""
    beside: bool = False


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
    beam: int = field(default=8, validator=ge(1))


@frozen
class Searching:
    """What every run is searched with besides greedily.

    domain      split of the sentences that the target's language model knows, and the name of its text and network
    source      name of the text, and of the network, of the training's own language model
    beams       on the domain      elsewhere   beam on the other splits; of each so many ``utterances``, the first
    fusions     of `nnac.decode.tuning.FUSIONS`, each tuned on ``domain``_dev at ``tuned_at`` hypotheses
    weights, shares, bonuses    the grid, as `nnac.decode.tuning.grid` has it
    compared    utterances of the domain of which all integers are compared, for every search
    """

    domain: str
    source: str = "train"
    beams: tuple[int, ...] = (1, 2, 4, 8, 16)
    fusions: tuple[str, ...] = ("none", "density_ratio")
    elsewhere: int = field(default=8, validator=ge(1))
    utterances: int = field(default=1500, validator=ge(1))
    tuned_at: int = field(default=4, validator=ge(1))
    weights: tuple[_Real, ...] = WEIGHTS
    shares: tuple[_Real, ...] = SHARES
    bonuses: tuple[_Real, ...] = BONUSES
    compared: int = field(default=4, validator=ge(1))

    def heard(self, split: str) -> int | None:
        """How many utterances of a split are heard; None: all."""
        return None if split in (self.domain, self.dev) else self.utterances

    @property
    def dev(self) -> str:
        return f"{self.domain}_dev"

    @property
    def languages(self) -> dict[str, str]:
        """Language models beside the recogniser (`nnac.companions.NAMES`) -> name of their text and float network."""
        return dict(lm=self.domain, source_lm=self.source)


@frozen
class Experiments:
    path: Path
    title: str
    splits: tuple[str, ...]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...] = ()
    note: str = ""
    search: Searching | None = None
    parts: tuple[str, ...] = ()

    @property
    def rows(self) -> Iterator[Row]:
        return (r for t in self.tables for r in t.rows)

    def quick(self) -> Experiments:
        """The small comparison: the rows marked quick, one seed each, and the claims between them.  Notes and reasons
        are of the whole one."""
        rows = {r.name for r in self.rows if r.quick}
        tables = (evolve(t, note="", rows=tuple(evolve(r, seeds=1) for r in t.rows if r.quick)) for t in self.tables)
        return evolve(self, title=f"{self.title} (the quick rows, one seed each)",
                      tables=tuple(t for t in tables if t.rows),
                      claims=tuple(evolve(c, reason="") for c in self.claims if {c.row, c.against} <= rows))

    def policy_path(self, row: Row) -> Path | None:
        """The policy file of a row.  ExperimentError if it does not exist."""
        return self._found(row, row.policy)

    def language_path(self, row: Row) -> Path | None:
        """The policy file of its language models; likewise."""
        return self._found(row, row.language)

    def _found(self, row: Row, policy: str | None) -> Path | None:
        if policy is None:
            return None
        places = (self.path.parent / policy, Path("specs") / policy, Path(policy))
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            raise ExperimentError(f"{self.path}: row `{row.name}`: no policy file {policy}")
        return found


@frozen
class _File:
    """An experiments file as it is written."""

    title: str
    splits: tuple[str, ...] = ("sent", "voice")
    tables: tuple[Table, ...] = field(default=(), metadata={"key": "table"})
    claims: tuple[Claim, ...] = field(default=(), metadata={"key": "claim"})
    note: str = ""
    search: Searching | None = None
    parts: tuple[str, ...] = ()


def load(path: str | Path) -> Experiments:
    """Read and check an experiments file.  ExperimentError: everything that is wrong with it, one line."""
    path = Path(path)
    text = read_text(path)
    try:
        data = parse_toml(text)
    except Wrong as error:
        raise ExperimentError(f"{path}: {error}") from None
    try:
        file = checked(_File, data)
    except Wrong as error:
        raise ExperimentError(f"{path}: {'; '.join(_named(line, data) for line in error.problems)}") from None
    return _checked(Experiments(path, file.title, file.splits, file.tables, file.claims, file.note, file.search,
                                file.parts))


def _named(line: str, data: dict[str, Any]) -> str:
    """A problem with the name of its row beside the row's number."""
    if found := re.match(r"table\[(\d+)\]\.row\[(\d+)\]", line):
        with suppress(LookupError, TypeError, AttributeError):
            name = data["table"][int(found[1]) - 1]["row"][int(found[2]) - 1].get("name")
            if isinstance(name, str):
                return f"{line[:found.end()]} `{name[:40]}`{line[found.end():]}"
    return line


def _checked(made: Experiments) -> Experiments:
    names = [r.name for r in made.rows]
    if made.search is not None:
        _check_search(made, made.search)
    if bad := [n for n in made.splits if not re.fullmatch(r"[A-Za-z0-9_-]+", n)] or ([""] if not made.splits else []):
        raise ExperimentError(f"{made.path}: splits: `{bad[0][:40]}` is no name of a split")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ExperimentError(f"{made.path}: row `{name}`: a name is letters, digits and - _ . (it names files)")
        if names.count(name) > 1:
            raise ExperimentError(f"{made.path}: two rows are called `{name}`")
    for table in made.tables:
        if table.against and table.against not in [r.name for r in table.rows]:
            raise ExperimentError(f"{made.path}: table `{table.title}`: `against` names no row of its own: "
                                  f"`{table.against}`")
    for claim in made.claims:
        for name in (claim.row, claim.against):
            if name not in names:
                raise ExperimentError(f"{made.path}: claim `{claim.text}`: no row is called `{name}`")
        if claim.measure not in MEASURES:
            raise ExperimentError(f"{made.path}: claim `{claim.text}`: no measure `{claim.measure}` (there are: "
                                  f"{', '.join(MEASURES)})")
        if claim.measure in FUSION_MEASURES and (made.search is None or claim.beam not in made.search.beams):
            raise ExperimentError(f"{made.path}: claim `{claim.text}`: nothing is searched with a beam of {claim.beam}")
        bounds = [b for b in (claim.at_most, claim.at_least) if b is not None]
        if bool(bounds) == (claim.indifference is not None):
            raise ExperimentError(f"{made.path}: claim `{claim.text}`: say at_most or at_least, or else indifference")
    return made


def _check_search(made: Experiments, search: Searching) -> None:
    if unknown := set(search.fusions) - set(FUSIONS):
        raise ExperimentError(f"{made.path}: search: no fusion is called `{min(unknown)}` (there are: "
                              f"{', '.join(FUSIONS)})")
    if not search.fusions or search.fusions[0] != "none":
        raise ExperimentError(f"{made.path}: search: `fusions` begins with `none`, which the others are compared with")
    if not search.weights or not search.shares or not search.bonuses:
        raise ExperimentError(f"{made.path}: search: a grid needs weights, shares and bonuses")
    if not search.beams or min(search.beams) < 1:
        raise ExperimentError(f"{made.path}: search: `beams` are numbers of hypotheses, 1 or more")
    if search.domain not in made.splits:
        raise ExperimentError(f"{made.path}: search: the domain `{search.domain}` is not among the splits")
    for row in made.rows:
        if (row.policy is None) != (row.language is None):
            raise ExperimentError(f"{made.path}: row `{row.name}`: `policy` and `language` go together, or there is "
                                  "neither")
