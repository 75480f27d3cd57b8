"""What beam search and language models did in the runs of a comparison: tables by fusion and beam, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from nnac.files import atomic
from nnac.latency.simulate import quantiles
from nnac.report.experiments import Claim, Experiments, Row, Searching
from nnac.report.outcomes import Outcome
from nnac.report.statistics import Estimate, Interval, difference, kept, rate

Outcomes = Mapping[str, Sequence[Outcome]]


def limits(i: Interval) -> str:
    return f"({i.low:+.2f} … {i.high:+.2f})"


def against(estimate: Estimate) -> str:
    """A difference with its interval over utterances, and the one over speakers."""
    more = f"; {limits(estimate.speakers)}" if estimate.speakers else ""
    return f"{estimate.value:+.2f} {limits(estimate.utterances)}{more}"


def of(outcomes: Sequence[Outcome], fusion: str, beam: int, split: str) -> list[Outcome]:
    """The runs as one search heard one split."""
    found = [o.by(fusion, beam) for o in outcomes]
    return [evolve(o, heard={split: o.heard[split]}) for o in found if o is not None and split in o.heard]


def measured(claim: Claim, outcomes: Outcomes, search: Searching) -> Estimate | None:
    """A measure of the last of the fusions at the claim's beam: points that it saves, and the share of them that is
    kept; None while a run is missing."""
    def pair(row: str) -> tuple[list[Outcome], list[Outcome]]:
        runs = outcomes.get(row, ())
        plain, fused = (of(runs, f, claim.beam, search.domain) for f in (search.fusions[0], search.fusions[-1]))
        return plain, fused

    plain, fused = pair(claim.row)
    if not plain or not fused:
        return None
    if claim.measure == "fusion_points":
        return difference(plain, fused)
    theirs, theirs_fused = pair(claim.against)
    return kept(theirs, theirs_fused, plain, fused) if theirs and theirs_fused else None


def tables(experiments: Experiments, outcomes: Outcomes, search: Searching) -> list[str]:
    """Lines of Markdown: sizes, then a table of searches a row of the experiments."""
    lines: list[str] = []
    for table in experiments.tables:
        done = [(r, outcomes[r.name]) for r in table.rows if outcomes.get(r.name)]
        lines += [f"## {table.title}", "", *([table.note.strip(), ""] if table.note else []), *_sizes(table.rows, done),
                  *_searches(done, search, experiments.splits)]
    return lines


def _sizes(rows: Sequence[Row], done: Sequence[tuple[Row, Sequence[Outcome]]]) -> list[str]:
    lines = ["| | weights | of language models | KiB | bits a weight | float32 over it | seeds |", "|---" * 7 + "|"]
    for row, group in done:
        weights, size = group[0].whole[0], sum(o.whole[1] for o in group) / len(group)
        beside = sum(w for w, _ in group[0].languages.values())
        seeds = f"{len(group)} of {row.seeds}" if len(group) < row.seeds else f"{len(group)}"
        lines.append(f"| {row.shown} | {weights:,} | {beside:,} | {size / 1024:,.0f} | {8 * size / weights:.2f} | "
                     f"{4 * weights / size:.2f} | {seeds} |")
    missing = [r.shown for r in rows if r.name not in {d.name for d, _ in done}]
    return [*lines, "", *([f"Not run: {', '.join(missing)}.", ""] if missing else [])]


def _searches(done: Sequence[tuple[Row, Sequence[Outcome]]], search: Searching, splits: Sequence[str]) -> list[str]:
    others = [s for s in splits if s != search.domain]
    head = ["", "fusion", "beam", f"{search.domain}: WER", "against no fusion at the same beam", *others,
            "cycles a frame", "work/audio", "UPL P90, ms"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, group in done:
        greedy = [evolve(o, heard={search.domain: o.heard[search.domain]}) for o in group]
        elsewhere = [_rate([evolve(o, heard={s: o.heard[s]}) for o in group]) for s in others]
        lines.append(_line([row.shown, "", "greedy", str(rate(greedy).utterances), "", *elsewhere, *_cost(group), ""]))
        for fusion in search.fusions:
            for beam in search.beams:
                found = of(group, fusion, beam, search.domain)
                if not found:
                    continue
                plain = of(group, search.fusions[0], beam, search.domain)
                lines.append(_line([
                    row.shown, fusion.replace("_", " "), str(beam), str(rate(found).utterances),
                    against(difference(plain, found)) if fusion != search.fusions[0] else "",
                    *(_rate(of(group, fusion, beam, s)) for s in others), *_cost(found), _p90(found)]))
    for row, group in done:
        weights = [f"seed {o.seed} `{s.options}`" for o in group for s in o.searched
                   if s.fusion != search.fusions[0] and s.beam == search.beams[0]]
        lines += ["", f"Weights that were found, {row.shown}: {'; '.join(weights)}."] if weights else []
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rate(outcomes: Sequence[Outcome]) -> str:
    return f"{rate(outcomes).value:.2f}" if outcomes else ""


def _cost(outcomes: Sequence[Outcome]) -> list[str]:
    """Cycles a frame, and the machine's time over the audio's."""
    known = [(o.cycles_per_frame, o.frame_ms, o.clock) for o in outcomes]
    cycles = [c for c, ms, clock in known if c is not None and ms and clock]
    shares = [1e3 * c / clock / ms for c, ms, clock in known if c is not None and ms and clock]
    if not cycles:
        return ["", ""]
    return [f"{sum(cycles) / len(cycles):,.0f}", f"{sum(shares) / len(shares):.5f}"]


def _p90(outcomes: Sequence[Outcome]) -> str:
    """Of user-perceived latency, over all runs, with its interval."""
    waited = [v for o in outcomes for s in o.searched for v in s.upl_s]
    if not waited:
        return ""
    q = quantiles(waited)
    return f"{1e3 * q.p90:.2f} ({1e3 * q.p90_interval[0]:.2f} … {1e3 * q.p90_interval[1]:.2f})"


def plot(experiments: Experiments, outcomes: Outcomes, search: Searching, folder: Path) -> list[str]:
    """Word errors on the domain by beam: a line a row and fusion.  The file's name; [] without matplotlib or runs."""
    done = [(r, outcomes[r.name]) for t in experiments.tables for r in t.rows if outcomes.get(r.name)]
    try:
        import matplotlib
    except ImportError:
        return []
    if not done:
        return []
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "nnac"            # the same picture is the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for i, (row, group) in enumerate(done):
        for fusion, style in zip(search.fusions, ("--", "-", ":", "-."), strict=False):
            points = [(k, rate(found).utterances) for k in search.beams
                      if (found := of(group, fusion, k, search.domain))]
            if points:
                values = [p.value for _, p in points]
                spread = [[p.value - p.low for _, p in points], [p.high - p.value for _, p in points]]
                axes.errorbar([k * (1 + 0.03 * i) for k, _ in points], values, spread, fmt=f"o{style}", ms=4, lw=1,
                              capsize=2, color=f"C{i}", label=f"{row.shown}, {fusion.replace('_', ' ')}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(search.beams, [str(k) for k in search.beams])
    axes.set(xlabel="hypotheses kept (beam)", ylabel=f"word error rate on {search.domain}, %", ylim=(0, None))
    axes.grid(True, lw=0.2)
    axes.legend(fontsize=8)
    with atomic(folder / "wer_beam.svg") as out:
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return ["wer_beam.svg"]
