"""Two programs on one machine made slower and slower, with more and more audio waiting at the start: where compression
changes what a user waits for, and where it does not.

A machine is slowed as a whole, clock and memory alike, so a program takes the same cycles and each takes longer; the
host stays as it is.  How slow is said by work over audio of the first program, which is what a designer fixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from nnac.errors import UserError
from nnac.files import atomic
from nnac.latency.measure import Latencies
from nnac.latency.simulate import change, simulate

SHARES = (0.05, 0.2, 0.45, 0.6, 0.8, 0.9, 0.98, 1.05, 1.2)    # work over audio
WAITING = (0.0, 0.3, 0.7, 1.0, 1.5)           # seconds of audio that are there when the engine is woken


class PlaneError(UserError):
    """A plane that cannot be drawn or reached; one line."""


@frozen
class Point:
    """One machine and one start.

    share    work over audio of the first program      slower    how often slower the machine is than the target
    first, second    P90 of user-perceived latency, seconds      changes  of the second from the first, of both P90:
    quantile -> (share, its paired 95 % interval)
    """

    share: float
    waiting_s: float
    slower: float
    first: float
    second: float
    changes: dict[str, tuple[float, tuple[float, float]]]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        shares = {k: dict(share=round(v, 5), interval=[round(x, 5) for x in i]) for k, (v, i) in self.changes.items()}
        return dict(work_over_audio=self.share, waiting_s=self.waiting_s, slower=round(self.slower, 4),
                    upl_p90_ms=[round(1e3 * v, 3) for v in (self.first, self.second)], change=shares)


def moved(done: Latencies, slower: float, waiting_s: float) -> Latencies:
    """The same utterances and rounds on a machine so many times slower, with so much audio waiting."""
    costs, scenario = evolve(done.costs, clock=done.costs.clock / slower), evolve(done.scenario, waiting_s=waiting_s)
    ends = [t.speech_end + done.scenario.waiting_s for t in done.timelines]
    lines = [simulate(costs, scenario, end, r) for end, r in zip(ends, done.rounds, strict=True)]
    return evolve(done, timelines=lines, costs=costs, scenario=scenario)


def slowness(done: Latencies, share: float) -> float:
    """How many times slower the machine has to be for work over audio to be ``share``.  PlaneError: the host alone
    takes longer than that."""
    one, two = (moved(done, slower, done.scenario.waiting_s).rtf for slower in (1.0, 2.0))
    machine, host = two - one, 2 * one - two               # work is the host's, and the machine's times its slowness
    if share <= host:
        raise PlaneError(f"no machine gives work/audio {share:g}: the host alone takes {host:.4f}")
    return (share - host) / machine


def plane(first: Latencies, second: Latencies, shares: Sequence[float] = SHARES,
          waiting: Sequence[float] = WAITING) -> Iterator[Point]:
    """Every point, row by row.  PlaneError as `slowness`."""
    for share in shares:
        slower = slowness(first, share)
        for seconds in waiting:
            a, b = (moved(d, slower, seconds) for d in (first, second))
            changes = dict(upl_p90=change(a.upl, b.upl), engine_p90=change(a.engine, b.engine))
            p90, other = (float(np.quantile(d.upl, 0.9)) for d in (a, b))
            yield Point(share, seconds, slower, p90, other, changes)


def draw(points: Sequence[Point], title: str, path: Path | str) -> None:
    """The change of P90 by work over audio, a line for each waiting audio, with intervals.  PlaneError without
    matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise PlaneError("a picture of the plane needs matplotlib: pip install 'nnac[plot]'") from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "nnac"            # the same picture is the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    for i, seconds in enumerate(dict.fromkeys(p.waiting_s for p in points)):
        row = [p for p in points if p.waiting_s == seconds]
        values = [100 * p.changes["upl_p90"][0] for p in row]
        limits = [p.changes["upl_p90"][1] for p in row]
        spread = [[v - 100 * a for v, (a, _) in zip(values, limits, strict=True)],
                  [100 * b - v for v, (_, b) in zip(values, limits, strict=True)]]
        axes.errorbar([p.share for p in row], values, spread, fmt="o-", ms=4, lw=1, capsize=2, color=f"C{i}",
                      label=f"{seconds:g} s waiting")
    axes.axvline(1.0, color="grey", lw=0.6, ls=":")
    axes.set(xlabel="work over audio of the first program", ylabel="change of P90 UPL, %", title=title)
    axes.grid(True, lw=0.2)
    axes.legend(fontsize=8, title="audio there at the start", title_fontsize=8)
    with atomic(path) as out:
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
