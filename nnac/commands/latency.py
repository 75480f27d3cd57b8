"""``nnac latency PROGRAM [OTHER …] --manifest FILE.jsonl``: when a user has the text, by simulation on the program's
exact cycles.

Audio arrives in real time; features, encoder, search and host take turns; the last word, the endpoint and the text
have their moments.  UPL is the text's minus the last word's end (the manifest's `speech_end`), engine latency the
text's minus the endpoint's.  P50 and P90 with 95 % intervals; of several programs each is compared with the first,
utterance by utterance.  Every constant of host and scenario is an option.

Compression shortens what a user waits for only where work piles up: `--slower-to 0.8 --waiting 700` looks at one
machine and one start, `--plane FILE.svg` at all.

Budgets of the policies (`budget { upl(p90) <= 300 ms }`) are checked: exit status 1 if one is exceeded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.latency.measure import Heard, Latencies
    from nnac.latency.plane import Point

    Change = dict[str, tuple[float, tuple[float, float]]]


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source, whole
    from nnac.commands._search import add_search_arguments, real

    p = subparsers.add_parser("latency", help="how long a user waits for the text", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("programs", type=source, nargs="+", metavar="PROGRAM")
    p.add_argument("--manifest", type=source, required=True, metavar="FILE.jsonl",
                   help="with `speech_end` in every line")
    p.add_argument("--first", type=whole(1), metavar="N", help="no more than the first N utterances")
    p.add_argument("--batch", type=whole(1), default=16, help="utterances in lockstep on the emulator (16)")
    p.add_argument("--picture", type=sink(), metavar="FILE.svg", help="draw one utterance on the first program")
    p.add_argument("--utterance", type=whole(1), default=1, metavar="K", help="which, counted from 1 (1)")
    p.add_argument("--labels", type=source, metavar="PROGRAM",
                   help="what is heard, and when, is this program's; of the others only their cycles count")
    p.add_argument("--slower-to", type=real(1e-6, 100), metavar="SHARE",
                   help="slow the machine, clock and memory alike, until the first program's work over audio is this")
    p.add_argument("--plane", type=sink(), metavar="FILE.svg",
                   help="of two programs: how P90 of UPL changes from machine to machine, and with audio that waits")
    p.add_argument("--json", action="store_true", help="one JSON object")
    add_search_arguments(p)
    g = p.add_argument_group("scenario")

    def put(name: str, unit: str, most: float, text: str) -> None:
        g.add_argument(name, type=real(0, most), metavar=unit, help=text)

    put("--hangover", "MS", 1e5, "silence after the last word until the endpoint (200)")
    put("--waiting", "MS", 1e6, "audio that is there when the engine is woken: the keyword's (0)")
    put("--load", "MS", 1e6, "from then until it can work, beside the program's own `init` (0)")
    put("--feature-us", "US", 1e6, "of the host, for a feature vector (20)")
    put("--launch-us", "US", 1e6, "of the host, to start a call (5)")
    put("--choose-us", "US", 1e6, "of the host, for one hypothesis in a round of search (15)")
    put("--more-us", "US", 1e6, "and for each further one (3.75)")
    put("--finish-us", "US", 1e6, "of the host, from the last round to the text (100)")
    p.set_defaults(run=run)


_UNITS = {option: (f"{option.removesuffix('_us')}_s", 1e-6 if option.endswith("_us") else 1e-3)
          for option in ("hangover", "waiting", "load", "feature_us", "launch_us", "choose_us", "more_us", "finish_us")}


def run(args: argparse.Namespace) -> int:
    from nnac.commands._search import searched
    from nnac.decode.front_end import front_end_of
    from nnac.executors import Subject
    from nnac.latency import plane
    from nnac.latency.measure import borrowed, compared, costs_of, listen, measure, over_budget
    from nnac.latency.simulate import Scenario
    from nnac.program import Program
    from nnac.speech.audio import read_manifest

    given = {option: getattr(args, option) for option in _UNITS if getattr(args, option) is not None}
    scenario = Scenario(**{_UNITS[option][0]: value * _UNITS[option][1] for option, value in given.items()})
    listed = read_manifest(args.manifest)[: args.first]
    if args.plane and len(args.programs) != 2:
        sys.stderr.write("nnac latency: --plane compares two programs\n")
        return 2
    programs = {path: Program.load(path) for path in args.programs}
    done: dict[str, Latencies] = {}
    heard: dict[str, list[Heard]] = {}

    def measured(path: str, program: Program) -> Latencies:
        heard[path] = listen(front_end_of(program), listed, scenario.hangover_s)
        search = searched(args, Subject(compiled=program, called=path))[1]
        return measure(program, heard[path], scenario, search, batch=args.batch, quiet=args.json,
                       keep=args.picture is not None and path == args.programs[0])

    if args.labels:
        spoken = Program.load(args.labels)
        labels = measured(args.programs[0], spoken)
        search = searched(args, Subject(compiled=spoken, called=args.labels))[1]
        done = {path: borrowed(labels, costs_of(program, search), args.picture is not None)
                for path, program in programs.items()}
    else:
        done = {path: measured(path, program) for path, program in programs.items()}
    if args.slower_to is not None:
        slower = plane.slowness(done[args.programs[0]], args.slower_to)
        done = {path: plane.moved(d, slower, scenario.waiting_s) for path, d in done.items()}
    broken = [f"{path}: {words}" for path, d in done.items() for words in over_budget(programs[path], d)]
    first = done[args.programs[0]]
    changes = {path: compared(first, d) for path, d in done.items() if d is not first}
    points = list(plane.plane(first, list(done.values())[1])) if args.plane else []
    if args.json:
        print(json.dumps({path: d.plain() | ({"change": _plain(changes[path])} if path in changes else {})
                          for path, d in done.items()} | ({"plane": [p.plain() for p in points]} if points else {})))
    else:
        report(done, changes)
        print_plane(points)
    if points:
        names = [Path(path).stem for path in args.programs]
        plane.draw(points, f"{names[1]} against {names[0]}, {len(listed)} utterances", args.plane)
    status = draw(args, heard[args.programs[0]], first) if args.picture else 0
    for words in broken:
        sys.stderr.write(f"nnac latency: {words}\n")
    return status or int(bool(broken))


def _plain(change: Change) -> dict[str, Any]:
    return {k: dict(share=round(v, 5), interval=[round(x, 5) for x in interval]) for k, (v, interval) in change.items()}


def report(done: dict[str, Latencies], changes: dict[str, Change]) -> None:
    """A table, a program a row; then what changed from the first."""
    from rich.console import Console
    from rich.table import Table

    count = len(next(iter(done.values())).timelines)
    table = Table("program", "UPL P50", "UPL P90", "engine P50", "engine P90", "work/audio", "WER",
                  title=f"{count} utterances, ms")
    for path, d in done.items():
        q = d.quantiles()
        cells = [f"{1e3 * v:.2f}\n{1e3 * i[0]:.2f} … {1e3 * i[1]:.2f}" for n in ("upl", "engine")
                 for v, i in ((q[n].p50, q[n].p50_interval), (q[n].p90, q[n].p90_interval))]
        table.add_row(Path(path).name, *cells, f"{d.rtf:.4f}", f"{d.errors.rate:.2f} %")
    Console(file=sys.stdout).print(table)
    for path, change in changes.items():
        names = {name: name.replace("upl_p", "UPL P").replace("_p", " P") for name in change}
        said = [f"{names[n]} {100 * v:+.2f} % ({100 * a:+.2f} … {100 * b:+.2f})" for n, (v, (a, b)) in change.items()]
        print(f"{path} against {next(iter(done))}:\n  " + "\n  ".join(said))


def print_plane(points: list[Point]) -> None:
    """A row a machine, a column a start: P90 of the first and of the second in ms, and the change."""
    if not points:
        return
    from rich.console import Console
    from rich.table import Table

    starts = list(dict.fromkeys(p.waiting_s for p in points))
    table = Table("work/audio", "slower", *(f"{s:g} s waiting" for s in starts), title="P90 of UPL, ms")
    for share in dict.fromkeys(p.share for p in points):
        row = [p for p in points if p.share == share]
        cells = []
        for p in row:
            value, (low, high) = p.changes["upl_p90"]
            cells.append(f"{1e3 * p.first:.0f} > {1e3 * p.second:.0f}\n"
                         f"{100 * value:+.1f} % ({100 * low:+.1f} … {100 * high:+.1f})")
        table.add_row(f"{share:g}", f"{row[0].slower:.2f}", *cells)
    Console(file=sys.stdout, width=150).print(table)


def draw(args: argparse.Namespace, heard: list[Heard], done: Latencies) -> int:
    """Write the picture; 2 if there is no such utterance."""
    from nnac.files import atomic
    from nnac.latency.picture import svg
    from nnac.speech.audio import load_audio

    if args.utterance > len(heard):
        sys.stderr.write(f"nnac latency: --utterance {args.utterance} of {len(heard)}\n")
        return 2
    at = args.utterance - 1
    run, rate = done.timelines[at], 16000
    title = f"“{done.texts[at]}”: UPL {1e3 * run.upl:.1f} ms, engine latency {1e3 * run.engine:.1f} ms"
    with atomic(args.picture, "w") as out:
        out.write(svg(title, load_audio(heard[at].name, rate), rate, done.scenario.waiting_s, run))
    print(f"{args.picture}: {heard[at].name}", file=sys.stderr if args.json else sys.stdout)
    return 0
