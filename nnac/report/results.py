"""RESULTS.md and its pictures, from result files alone: tables, verdicts on claims, Pareto fronts."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from nnac.files import atomic, read_text
from nnac.report import searches
from nnac.report.experiments import FUSION_MEASURES, MEASURES, Claim, Experiments, Row, Searching, Table
from nnac.report.outcomes import Outcome
from nnac.report.searches import against, limits
from nnac.report.statistics import DESIGNS, Estimate, Interval, Spread, difference, rate, spread, verdict

Outcomes = Mapping[str, Sequence[Outcome]]
SLACK = 1.02                   # within which bytes, or cycles, count as the same


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def measured(claim: Claim, outcomes: Outcomes, search: Searching | None = None) -> Estimate | None:
    """A claim's measure; None while a run is missing.  Bytes (language models included) and cycles have no interval but
    their seeds' range."""
    ours, theirs = outcomes.get(claim.row), outcomes.get(claim.against)
    if not ours or not theirs:
        return None
    if claim.measure in ("wer_points", "wer_relative"):
        return difference(theirs, ours, relative=claim.measure == "wer_relative")
    if claim.measure in FUSION_MEASURES:
        return searches.measured(claim, outcomes, search) if search is not None else None
    if claim.measure == "cycles_relative":
        pairs = [(o.cycles_per_frame, t.cycles_per_frame) for o in ours for t in theirs]
        ratios = [a / b for a, b in pairs if a is not None and b]
    else:
        ratios = [o.whole[1] / max(1, t.whole[1]) for o in ours for t in theirs]
    if not ratios:
        return None
    values = [1 / r for r in ratios] if claim.measure == "compression" else [100 * (r - 1) for r in ratios]
    return Estimate(Interval.between(mean(values), min(values), max(values)))


def of_one_network(claim: Claim, outcomes: Outcomes) -> bool:
    """Whether a claim's rows start from different float networks, one of them from a single one: what another training
    of that network would have changed is then in neither interval."""
    sides = [{o.start for o in outcomes.get(name, ()) if o.start} for name in (claim.row, claim.against)]
    return all(sides) and not sides[0] & sides[1] and min(map(len, sides)) == 1


def judged(claim: Claim, value: Estimate | None) -> str:
    """The verdict on a claim."""
    return verdict(value, claim.at_most, claim.at_least, claim.indifference)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both coordinates (smaller is better), by the first coordinate."""
    best, chosen = math.inf, []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < best:
            best = points[i][1]
            chosen.append(i)
    return chosen


def _kib(n: float) -> str:
    return f"{n / 1024:,.0f}"


def _row(row: Row, outcomes: Sequence[Outcome], splits: Sequence[str], reference: Sequence[Outcome] | None) -> str:
    if not outcomes:
        return f"| {row.shown} | not run |" + " |" * (len(splits) + 5)
    of_row = rate(outcomes)
    per_split = [f"{mean([o.heard[s].rate for o in outcomes]):.2f}" if all(s in o.heard for o in outcomes) else ""
                 for s in splits]
    other = reference and reference is not outcomes
    compared = against(difference(reference, outcomes)) if reference and other else ""
    bits = 8 * mean([o.bytes / max(1, o.weights) for o in outcomes])
    cycles = [o.cycles_per_frame for o in outcomes if o.cycles_per_frame is not None]
    seeds = ", ".join(f"{o.rate:.2f}" for o in outcomes) if len(outcomes) > 1 else ""
    partial = f" ({len(outcomes)} of {row.seeds} seeds)" if len(outcomes) < row.seeds else ""
    return (f"| {row.shown}{partial} | {of_row.utterances} | {' | '.join(per_split)} | {compared} | "
            f"{_kib(mean([o.bytes for o in outcomes]))} | {bits:.2f} | {f'{mean(cycles):,.0f}' if cycles else ''} | "
            f"{seeds} |")


def markdown(experiments: Experiments, outcomes: Outcomes, reference: str | None = None,
             pictures: Sequence[str] = (), more: Sequence[str] = ()) -> str:
    """The whole of RESULTS.md.  ``reference``: the row that all others are compared with (default: the first that has a
    policy); ``more``: lines between tables and claims."""
    rows = list(experiments.rows)
    reference = reference or next((r.name for r in rows if r.policy is not None), None)
    base = outcomes.get(reference or "") or None
    shown = next((r.shown for r in rows if r.name == reference), "")
    done = [o for group in outcomes.values() for o in group]
    lines = [f"# {experiments.title}", ""]
    if experiments.note:
        lines += [experiments.note.strip(), ""]
    lines += ["Made by `nnac sweep` from the result files alone; each row is a policy, trained, compiled and run."]
    if experiments.search is not None:
        lines += ["WER in per cent with 95 % bootstrap intervals over utterances; the difference from no fusion is "
                  "paired over utterances and seeds, its second interval draws whole speakers. KiB: all compressed "
                  "weights as they lie in the program. Cycles: the whole recognition of the domain, search and "
                  "language models included, per encoder step; work/audio: their time over the audio's. UPL: "
                  "user-perceived latency, docs/search.md.", ""]
    else:
        lines += [f"WER in per cent over {' and '.join(experiments.splits)} together, with 95 % bootstrap intervals; "
                  f"the difference from *{shown}* is paired over utterances, and over seeds where both have the same; "
                  "its second interval draws whole speakers instead of utterances. KiB: all compressed weights as they "
                  "lie in the program. Cycles: the whole recognition, per encoder step.", ""]
    if done:
        words = sum(h.words for h in done[0].heard.values())
        utterances = sum(len(h.errors) for h in done[0].heard.values())
        checked, different = sum(o.checked for o in done), sum(o.different for o in done)
        lines += [f"{len(done)} of {sum(r.seeds for r in rows)} runs done, {utterances:,} utterances, {words:,} words "
                  f"each; {checked:,} integers "
                  f"compared between training module and emulator, {different:,} different; "
                  f"{sum(o.wall_s for o in done) / 3600:.1f} h of computing; "
                  f"code {', '.join(sorted({o.commit for o in done}))}.", ""]
        if ways := sorted({str(o.notes["search"]) for o in done if "search" in o.notes}):
            lines += [f"Heard with {', '.join(f'`{w}`' for w in ways)}.", ""]
    if experiments.search is not None:
        lines += searches.tables(experiments, outcomes, experiments.search)
    names = {r.name: r.shown for r in rows}
    for table in experiments.tables if experiments.search is None else ():
        head = ["", "WER", *experiments.splits, f"against {names.get(table.against, shown)}", "KiB", "bits/weight",
                "cycles", "WER of each seed"]
        own = outcomes.get(table.against) or None if table.against else base
        lines += [f"## {table.title}", ""]
        if table.note:
            lines += [table.note.strip(), ""]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        lines += [_row(r, outcomes.get(r.name, ()), experiments.splits, own) for r in table.rows]
        lines += ["", *(_beside(table, experiments, outcomes) if table.beside else ())]
    lines += more
    if experiments.claims:
        lines += ["## Claims", "",
            "Published relative claims beside ours, each decided at one-sided 95 % by the wider of its two intervals "
                  "(utterances; speakers). *holds*: the limit lies within the bound; *undecided*: the interval crosses "
                  "it. Where a method is said "
                  "to help, the bound is a margin of indifference: *better*, *worse*, or *no difference beyond* it.",
                  "",
                  "| paper | claim | ours | bound | verdict |", "|---|---|---|---|---|"]
        claims = [(c, measured(c, outcomes, experiments.search)) for c in experiments.claims]
        alone = {c for c, _ in claims if c.measure.startswith("wer_") and of_one_network(c, outcomes)}
        lines += [_claim(c, value, c in alone) for c, value in claims] + [""]
        if alone:
            lines += ["*Of these networks*: the rows start from different float networks, a side from a single one, so "
                      "the interval does not cover another training of it (`--float NAME=FILE`, given several times, "
                      "does).", ""]
        lines += [f"- *{c.text}*: {' '.join(c.reason.split())}" for c, value in claims
                  if c.reason and judged(c, value) not in ("holds", "better", "not run")] + [""]
    lines += _front(experiments, outcomes) if experiments.search is None else []
    for picture in pictures:
        lines += [f"![{Path(picture).stem.replace('_', ' ')}]({picture})", ""]
    for part in experiments.parts:
        lines += _part(experiments.path.parent / part)
    return "\n".join(lines)


def _beside(table: Table, experiments: Experiments, outcomes: Outcomes) -> list[str]:
    """Each row of a table beside the best row of other tables (the main family's) that takes no more bytes, and the
    best that takes no more cycles a second of the same machine; `SLACK` more is no more."""
    others = [r for t in experiments.tables if t is not table and not t.against for r in t.rows
              if r.policy is not None and outcomes.get(r.name)]

    def size(row: Row) -> float:
        return mean([o.bytes for o in outcomes[row.name]])

    def pace(row: Row) -> float:
        found = [c for o in outcomes[row.name] if (c := o.cycles_per_second) is not None]
        return mean(found) if found else math.inf

    def best(rows: list[Row], amount: Callable[[Row], str]) -> str:
        found = min(rows, key=lambda r: (rate(outcomes[r.name]).value, r.name), default=None)
        return "none | " if found is None else (
            f"{found.shown} ({amount(found)}) | {rate(outcomes[found.name]).value:.2f}")

    lines = []
    for row in table.rows:
        own = outcomes.get(row.name)
        if row.policy is None or not own:
            continue
        small = [r for r in others if size(r) <= SLACK * size(row)]
        quick = [r for r in others if pace(r) <= SLACK * pace(row) < math.inf
                 and outcomes[r.name][0].target == own[0].target]
        lines.append(f"| {row.shown} | {rate(own).value:.2f} | {_kib(size(row))} | "
                     f"{best(small, lambda r: _kib(size(r)))} | {pace(row) / 1e6:.2f} | "
                     f"{best(quick, lambda r: f'{pace(r) / 1e6:.2f}')} |")
    if not lines:
        return []
    return [f"Beside the other tables: the best that takes no more bytes, and the best that takes no more cycles a "
            f"second of audio on the same machine (up to {100 * SLACK - 100:.0f} % more counts as no more).", "",
            "| | WER | KiB | no more KiB | WER | Mcycles/s | no more Mcycles/s | WER |", "|---" * 8 + "|", *lines, ""]


def _part(path: Path) -> list[str]:
    """Another command's report as a chapter of this one: its headings one level down, its pictures found from here;
    nothing while it is not there."""
    if not path.is_file():
        return []
    place = os.path.relpath(path.parent)
    text = re.sub(r"(?m)^(#+ )", r"#\1", read_text(path))
    return [re.sub(r"(!\[[^\]]*\]\()", rf"\1{place}/", text).rstrip(), ""]


def _front(experiments: Experiments, outcomes: Outcomes) -> list[str]:
    done = [(t, r) for t in experiments.tables for r in t.rows if outcomes.get(r.name) and not t.against]
    points = [(mean([o.bytes for o in outcomes[r.name]]), rate(outcomes[r.name]).value) for _, r in done]
    best = front(points)
    if len(best) < 2:
        return []
    return ["## Pareto front", "", "Nothing else is both smaller and better.", "", "| | KiB | WER |", "|---|---|---|",
            *(f"| {done[i][0].title}: {done[i][1].shown} | {_kib(points[i][0])} | {points[i][1]:.2f} |" for i in best),
            ""]


def _claim(claim: Claim, value: Estimate | None, alone: bool) -> str:
    shown = "" if value is None else f"{value.utterances}" + (f"; {limits(value.speakers)}" if value.speakers else "")
    bounds = " and ".join(f"{sign} {b:g}" for sign, b in (("≥", claim.at_least), ("≤", claim.at_most)) if b is not None)
    bounds = f"± {claim.indifference:g}" if claim.indifference is not None else bounds
    return (f"| {claim.paper} | {claim.text} | {shown} {MEASURES[claim.measure]} | {bounds} | {judged(claim, value)}"
            f"{', of these networks' if alone else ''} |")


# ---------------------------------------------------------------------------------------------------------------- power

def power(experiments: Experiments, outcomes: Outcomes) -> list[tuple[Claim, Spread | None]]:
    """Every claim about word errors with the components of its noise (None: fewer than two seeds are paired)."""
    out = []
    for claim in experiments.claims:
        ours, theirs = outcomes.get(claim.row), outcomes.get(claim.against)
        if claim.measure in ("wer_points", "wer_relative") and ours and theirs:
            out.append((claim, spread(theirs, ours, relative=claim.measure == "wer_relative")))
    return out


def power_text(experiments: Experiments, outcomes: Outcomes) -> str:
    """The power table: what each design would decide, if the truth is what was measured."""
    lines = ["What each claim would take.  D: measured difference, seed by seed; sd: of one utterance (persistent | "
             "seed by utterance) and of a "
             "seed.", "For each design (utterances x seeds): standard error; smallest true difference found with 80 % "
             "power (one-sided 5 %); power "
             "against the bound,",
             "or, with a margin of indifference, power to show that nothing is there if nothing is.", ""]
    for claim, s in power(experiments, outcomes):
        unit = "%" if claim.measure == "wer_relative" else "points"
        lines.append(f"{claim.paper}: {claim.text}  ({claim.row} against {claim.against}, {unit})")
        if s is None:
            lines += ["    fewer than two seeds of both rows: the components cannot be told apart", ""]
            continue
        lines.append(f"    D {s.value:+.2f} ({', '.join(f'{v:+.2f}' for v in s.per_seed)})   sd {s.utterance:.1f} | "
                     f"{s.interaction:.1f} an utterance, "
                     f"{s.seed:.2f} a seed")
        bound = claim.at_most if claim.at_most is not None else claim.at_least
        for utterances, seeds in DESIGNS:
            text = (f"    {utterances:>6,} x {seeds:>2}: se {s.error(utterances, seeds):.3f}; finds "
                    f"{s.detectable(utterances, seeds):.2f}")
            if claim.indifference is not None:
                text += (f"; no difference beyond {claim.indifference:g}: "
                         f"{100 * s.equivalence(claim.indifference, utterances, seeds):.0f} %")
            elif bound is not None:
                text += f"; against {bound:g}: {100 * s.decides(bound, utterances, seeds):.0f} %"
            lines.append(text)
        lines.append("")
    return "\n".join(lines).rstrip()


def plot(experiments: Experiments, outcomes: Outcomes, folder: Path) -> list[str]:
    """WER against KiB and against cycles: a panel a table, all other points in grey, the Pareto front of all drawn in
    each.

    Cycles of another machine do not compare: they have a front of their own.  The files' names; [] without matplotlib
    or runs.
    """
    if experiments.search is not None:
        return searches.plot(experiments, outcomes, experiments.search, folder)
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "nnac"            # the same picture is the same file
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    made = []
    for key, label, of in (("size", "KiB of weights in the program", lambda o: o.bytes / 1024),
                           ("cycles", "million cycles a second of audio",
                            lambda o: o.cycles_per_second and o.cycles_per_second / 1e6)):
        tables = [(t.title, points) for t in experiments.tables if (points := _points(t.rows, outcomes, of))]
        if not tables:
            continue
        across = min(2, len(tables))
        down = -(-len(tables) // across)
        figure, grid = plt.subplots(down, across, figsize=(5.6 * across, 4.2 * down), sharex=True, sharey=True,
                                    squeeze=False, layout="constrained")
        for axes in grid.flat[len(tables):]:
            axes.set_visible(False)
        for i, (axes, (title, points)) in enumerate(zip(grid.flat, tables, strict=False)):
            everything = [(p.x, p.rate) for _, others in tables for p in others if key == "size"
                          or p.target == points[-1].target]
            best = [everything[i] for i in front(everything)]
            axes.step([p[0] for p in best], [p[1] for p in best], where="post", color="grey", lw=0.8, ls="--", zorder=0)
            axes.scatter(*zip(*everything, strict=True), s=8, color="lightgrey", zorder=1)
            for p in points:
                axes.errorbar(p.x, p.rate, [[p.rate - p.low], [p.high - p.rate]], fmt="o", ms=5, lw=0.8, capsize=2,
                              color=f"C{i}")
            axes.set(xscale="log", yscale="log", title=title)
            axes.set_xlabel(label if i >= len(tables) - across else "")
            axes.set_ylabel("word error rate, %" if i % across == 0 else "")
            for axis, steps in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1, 1.5, 2, 3, 4, 5, 6, 7, 8))):
                axis.set_major_locator(LogLocator(subs=steps))
                axis.set_major_formatter("{x:,g}")
                axis.set_minor_formatter(NullFormatter())
            axes.tick_params(labelbottom=i >= len(tables) - across)
            axes.grid(True, lw=0.2)
        figure.suptitle(experiments.title)
        for axes, (_, points) in zip(grid.flat, tables, strict=False):
            _label(axes, points)
        name = f"wer_{key}.svg"
        with atomic(folder / name) as out:
            figure.savefig(out, format="svg", metadata={"Date": None})
        made.append(name)
        plt.close(figure)
    return made


@frozen
class _Point:
    label: str
    x: float
    rate: float
    low: float
    high: float
    target: str = ""


def _points(rows: Sequence[Row], outcomes: Outcomes, of: Callable[[Outcome], float | None]) -> list[_Point]:
    points = []
    for row in rows:
        group = outcomes.get(row.name, ())
        places = [x for o in group if (x := of(o)) is not None]
        if places:
            r = rate(group).utterances
            points.append(_Point(row.shown, mean(places), r.value, min(r.low, r.value), max(r.high, r.value),
                                 group[0].target))
    return points


def _label(axes: Any, points: Sequence[_Point]) -> None:
    """Names beside the points, moved apart where adjustText is installed."""
    texts = [axes.text(p.x, p.rate, p.label, fontsize=7) for p in points]
    try:
        from adjustText import adjust_text
    except ImportError:
        return
    # An iteration limit, for a time limit would draw another picture on another day; more force up and down, for points
    # lie above each other.
    adjust_text(texts, [p.x for p in points], [p.rate for p in points], ax=axes, iter_lim=300, force_text=(0.3, 0.8),
                expand=(1.05, 1.4),
                arrowprops=dict(arrowstyle="-", lw=0.4, color="grey"))


def write(experiments: Experiments, outcomes: Outcomes, path: Path, pictures: Path | None = None,
          more: Sequence[str] = ()) -> None:
    """Write RESULTS.md at ``path``, pictures into ``pictures`` (default: none).  more: as `markdown` takes it."""
    names = plot(experiments, outcomes, pictures) if pictures is not None else []
    relative = [str((pictures / n).resolve().relative_to(path.resolve().parent))
                for n in names] if pictures is not None else []
    with atomic(path, "w") as out:
        out.write(markdown(experiments, outcomes, pictures=relative, more=more) + "\n")
