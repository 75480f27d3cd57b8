"""RESULTS.md and its pictures, from result files alone: tables, verdicts on claims, Pareto fronts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnac.files import atomic
from nnac.report.experiments import MEASURES, Claim, Experiments, Row
from nnac.report.outcomes import Outcome, difference, rate

Outcomes = Mapping[str, Sequence[Outcome]]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def measured(claim: Claim, outcomes: Outcomes) -> tuple[float, float, float] | None:
    """(value, low, high) of a claim's measure; None while a run is missing.  Bytes and cycles have no interval but their seeds' range."""
    ours, theirs = outcomes.get(claim.row), outcomes.get(claim.against)
    if not ours or not theirs:
        return None
    if claim.measure in ("wer_points", "wer_relative"):
        return difference(theirs, ours, relative=claim.measure == "wer_relative")
    if claim.measure == "cycles_relative":
        pairs = [(o.cycles_per_frame, t.cycles_per_frame) for o in ours for t in theirs]
        ratios = [a / b for a, b in pairs if a is not None and b]
    else:
        ratios = [o.bytes / max(1, t.bytes) for o in ours for t in theirs]
    if not ratios:
        return None
    values = [1 / r for r in ratios] if claim.measure == "compression" else [100 * (r - 1) for r in ratios]
    return mean(values), min(values), max(values)


def verdict(claim: Claim, value: tuple[float, float, float] | None) -> str:
    """``holds`` when the whole interval is within the bounds, ``does not hold`` when none of it is, else ``undecided``."""
    if value is None:
        return "not run"
    _, low, high = value
    top = math.inf if claim.at_most is None else claim.at_most
    bottom = -math.inf if claim.at_least is None else claim.at_least
    if bottom <= low and high <= top:
        return "holds"
    return "does not hold" if low > top or high < bottom else "undecided"


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
    value, low, high = rate(outcomes)
    per_split = [f"{mean([o.heard[s].rate for o in outcomes]):.2f}" if all(s in o.heard for o in outcomes) else "" for s in splits]
    against = ""
    if reference and reference is not outcomes:
        d, d_low, d_high = difference(reference, outcomes)
        against = f"{d:+.2f} ({d_low:+.2f} … {d_high:+.2f})"
    bits = 8 * mean([o.bytes / max(1, o.weights) for o in outcomes])
    cycles = [o.cycles_per_frame for o in outcomes if o.cycles_per_frame is not None]
    seeds = ", ".join(f"{o.rate:.2f}" for o in outcomes) if len(outcomes) > 1 else ""
    partial = f" ({len(outcomes)} of {row.seeds} seeds)" if len(outcomes) < row.seeds else ""
    return (f"| {row.shown}{partial} | {value:.2f} ({low:.2f} … {high:.2f}) | {' | '.join(per_split)} | {against} | "
            f"{_kib(mean([o.bytes for o in outcomes]))} | {bits:.2f} | {f'{mean(cycles):,.0f}' if cycles else ''} | {seeds} |")


def markdown(experiments: Experiments, outcomes: Outcomes, reference: str | None = None, pictures: Sequence[str] = ()) -> str:
    """The whole of RESULTS.md.  ``reference``: the row that all others are compared with (default: the first that has a policy)."""
    rows = list(experiments.rows)
    reference = reference or next((r.name for r in rows if r.policy is not None), None)
    base = outcomes.get(reference or "") or None
    shown = next((r.shown for r in rows if r.name == reference), "")
    done = [o for group in outcomes.values() for o in group]
    lines = [f"# {experiments.title}", ""]
    if experiments.note:
        lines += [experiments.note.strip(), ""]
    lines += ["Made by `nnac sweep` from the result files alone; each row is a policy, trained, compiled and run.",
              f"WER in per cent over {' and '.join(experiments.splits)} together, with 95 % bootstrap intervals; the difference from "
              f"*{shown}* is paired over utterances. KiB: all compressed weights as they lie in the program. Cycles: the whole "
              "recognition, per encoder step.", ""]
    if done:
        words = sum(h.words for h in done[0].heard.values())
        utterances = sum(len(h.errors) for h in done[0].heard.values())
        checked, different = sum(o.checked for o in done), sum(o.different for o in done)
        lines += [f"{len(done)} of {sum(r.seeds for r in rows)} runs done, {utterances:,} utterances, {words:,} words each; {checked:,} integers "
                  f"compared between training module and emulator, {different:,} different; {sum(o.wall_s for o in done) / 3600:.1f} h of computing; "
                  f"code {', '.join(sorted({o.commit for o in done}))}.", ""]
    head = ["", "WER", *experiments.splits, f"against {shown}", "KiB", "bits/weight", "cycles", "WER of each seed"]
    for table in experiments.tables:
        lines += [f"## {table.title}", ""]
        if table.note:
            lines += [table.note.strip(), ""]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        lines += [_row(r, outcomes.get(r.name, ()), experiments.splits, base) for r in table.rows]
        lines.append("")
    if experiments.claims:
        lines += ["## Claims", "", "Published relative claims beside ours. *holds*: our whole interval lies within the bound; *undecided*: it "
                  "crosses it.", "", "| paper | claim | ours | bound | verdict |", "|---|---|---|---|---|"]
        lines += [_claim(c, outcomes) for c in experiments.claims] + [""]
    for picture in pictures:
        lines += [f"![{Path(picture).stem.replace('_', ' ')}]({picture})", ""]
    return "\n".join(lines)


def _claim(claim: Claim, outcomes: Outcomes) -> str:
    value = measured(claim, outcomes)
    shown = "" if value is None else f"{value[0]:.2f} ({value[1]:.2f} … {value[2]:.2f})"
    bounds = " and ".join(f"{sign} {b:g}" for sign, b in (("≥", claim.at_least), ("≤", claim.at_most)) if b is not None)
    return f"| {claim.paper} | {claim.text} | {shown} {MEASURES[claim.measure]} | {bounds} | {verdict(claim, value)} |"


def plot(experiments: Experiments, outcomes: Outcomes, folder: Path) -> list[str]:
    """WER against KiB and against cycles, one colour a table, Pareto front drawn; the files' names.  [] without matplotlib or runs."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    made = []
    for key, label, of in (("size", "KiB of weights in the program", lambda o: o.bytes / 1024),
                           ("cycles", "cycles per encoder step", lambda o: o.cycles_per_frame)):
        figure, axes = plt.subplots(figsize=(8, 5.5))
        points, colours = [], plt.rcParams["axes.prop_cycle"].by_key()["color"]
        for i, table in enumerate(experiments.tables):
            first = True
            for row in table.rows:
                group = [o for o in outcomes.get(row.name, ()) if of(o) is not None]
                if not group:
                    continue
                value, low, high = rate(group)
                x = mean([of(o) for o in group])
                points.append((x, value))
                axes.errorbar(x, value, [[max(0, value - low)], [max(0, high - value)]], fmt="o", ms=5, lw=0.8, capsize=2,
                              color=colours[i % len(colours)], label=table.title if first else None)
                axes.annotate(row.shown, (x, value), textcoords="offset points", xytext=(5, 4), fontsize=6)
                first = False
        if points:
            best = [points[i] for i in front(points)]
            axes.step([p[0] for p in best], [p[1] for p in best], where="post", color="grey", lw=0.8, ls="--", zorder=0)
            axes.set(xlabel=label, ylabel="word error rate, %", xscale="log", yscale="log", title=experiments.title)
            axes.grid(True, which="both", lw=0.2)
            axes.legend(fontsize=7)
            name = f"wer_{key}.svg"
            with atomic(folder / name) as out:
                figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
            made.append(name)
        plt.close(figure)
    return made


def write(experiments: Experiments, outcomes: Outcomes, path: Path, pictures: Path | None = None) -> None:
    """Write RESULTS.md at ``path``, pictures into ``pictures`` (default: no pictures)."""
    names = plot(experiments, outcomes, pictures) if pictures is not None else []
    relative = [str((pictures / n).resolve().relative_to(path.resolve().parent)) for n in names] if pictures is not None else []
    with atomic(path, "w") as out:
        out.write(markdown(experiments, outcomes, pictures=relative) + "\n")
