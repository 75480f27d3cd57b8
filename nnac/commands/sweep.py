"""``nnac sweep EXPERIMENTS.toml --float FILE --corpus DIR``: train, compile and measure every policy of a comparison.

Each run has a folder under --runs and leaves one small result file under --results; what is there is not done again, so
a sweep can be stopped at any moment and spread over days.  A result of a policy that has changed since, or of another
float network, is done again; one that another comparison has in its own folder (--also) is not.  The report (tables,
verdicts on published claims, pictures) is made from the result files alone: `nnac sweep EXPERIMENTS.toml --report`
makes it anew, and `--power` says how many utterances and seeds each claim would take.  `--host` times the models of the
rows that say `host = true` on this machine, evaluated, by GraphBLAS and by torch, for the same report; it resumes as
well.

Runs are heard greedily, hybrids on their graph.  --search and its options, as `nnac run` has them, hear every run in
another way, n-gram language models (ARPA) beside it: its word errors, its cycles, and the n-best lists that are
compared; a result that was heard otherwise is another run.  Neural language models, weights that are found and several
beams are what a [search] block in the file is for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import corpus, folder, named_network, sink, source, whole
    from nnac.commands._search import add_search_arguments

    p = subparsers.add_parser("sweep", help="compare many policies on a corpus", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("experiments", type=source, metavar="EXPERIMENTS.toml")
    p.add_argument("--float", dest="floats", type=named_network, action="append", default=[], metavar="[NAME=]FILE",
                   help="float network to start from; of several of one name, seed s starts from the s-th, counted "
                   "round")
    p.add_argument("--corpus", type=corpus, metavar="DIR")
    p.add_argument("--alignments", type=source, metavar="FILE", help="of the corpus, for rows of hybrids")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where hybrids are heard (cpu)")
    p.add_argument("--results", type=folder, default="results", metavar="DIR",
                   help="result files and pictures (results)")
    p.add_argument("--also", type=folder, action="append", default=[], metavar="DIR",
                   help="results of another comparison: a run that is the same there is copied, not done again")
    p.add_argument("--runs", type=folder, default="runs/sweep", metavar="DIR", help="folders of the runs (runs/sweep)")
    p.add_argument("--out", type=sink(), default="RESULTS.md", metavar="FILE", help="the report (RESULTS.md)")
    p.add_argument("--quick", action="store_true", help="only the rows marked quick, one seed each")
    p.add_argument("--only", action="append", default=[], metavar="ROW",
                   help="only this row, or rows: 'gq*' (may be given several times)")
    p.add_argument("--jobs", type=whole(1, 256), default=1, metavar="N", help="runs side by side (1)")
    p.add_argument("--utterances", type=whole(1), metavar="N", help="of each split, for the word errors (all)")
    p.add_argument("--steps", type=whole(0), metavar="N",
                   help="of training, instead of every row's own: a trial; give it --results of its own")
    p.add_argument("--host", action="store_true",
                   help="time the trained models of the rows marked host, and make the report")
    p.add_argument("--report", action="store_true", help="only make the report")
    p.add_argument("--power", action="store_true", help="only print what would decide each claim")
    p.add_argument("--list", action="store_true",
                   help="only list the runs that are missing; with --float and --corpus, also those of another policy, "
                   "network or length")
    p.add_argument("--one", help=argparse.SUPPRESS)        # one run, in this process: ROW:SEED
    add_search_arguments(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.commands._search import SearchOptionError
    from nnac.report import experiments as e
    from nnac.report import outcomes, runs

    experiments = e.load(args.experiments)
    if args.quick:
        experiments = experiments.quick()
    results = Path(args.results)
    if args.list:
        other: dict[Path, str] = {}
        if args.floats:                                    # what a result would be now takes the float networks
            made = _recognise(args, experiments)
            other = runs.stale(experiments, results, made.identities(experiments))
        for row, seed in runs.missing(experiments, results, args.only, other):
            differs = other.get(outcomes.path_of(results, row.name, seed))
            print(f"{row.name} seed {seed}" + (f" ({differs})" if differs else ""))
        return 0
    if args.power:
        from nnac.report import results as report

        print(report.power_text(experiments, outcomes.load_all(results, [(r.name, r.seeds) for r in experiments.rows])))
        return 0
    if args.one:
        return _one(args, experiments, results)
    if args.host:
        return _host(args, experiments, results)
    failed: list[str] = []
    useless: dict[Path, str] = {}
    if not args.report:
        if args.jobs < 1:
            sys.stderr.write(f"nnac sweep: --jobs is at least 1, not {args.jobs}\n")
            return 2
        # say what is missing before hours of work
        recognise = _recognise(args, experiments)
        def wanted() -> runs.Wanted:
            """What a row's run would be now; None for one that is not asked for and could not be heard so."""
            identity = recognise.identities(experiments)

            def of(row: Any, seed: int) -> Any:
                try:
                    return identity(row, seed)
                except SearchOptionError:
                    if args.only and row.name not in args.only:
                        return None
                    raise
            return of

        now = wanted()
        useless = runs.stale(experiments, results, now)
        jobs = runs.missing(experiments, results, args.only, useless)
        if copied := runs.taken(jobs, results, [Path(d) for d in args.also], now):
            sys.stderr.write(f"nnac sweep: {len(copied)} runs are the same in {', '.join(args.also)}: copied\n")
            useless = {path: what for path, what in useless.items() if path not in copied}
            jobs = runs.missing(experiments, results, args.only, useless)
        for row in dict.fromkeys(row for row, _ in jobs):
            experiments.policy_path(row)
            now(row, 0)
        for what in sorted(set(useless.values())):
            names = sorted(p.stem for p, other in useless.items() if other == what)
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            sys.stderr.write(f"nnac sweep: {results}: of {what}, and left out until run again: {shown}\n")
        failed = runs.work(jobs, lambda row, seed: runs.python("sweep", *_passed(args), "--one", f"{row.name}:{seed}"),
                           Path(args.runs), args.jobs)
        useless = runs.stale(experiments, results, wanted())       # policies may have changed meanwhile
    _report(args, experiments, results, useless)
    for name in failed:
        sys.stderr.write(f"nnac sweep: {name} failed: see {Path(args.runs) / f'{name}.log'}\n")
    return 1 if failed else 0


def _networks(args: argparse.Namespace) -> dict[str, list[Path]]:
    from nnac.report.runs import RunError

    if not args.corpus or not args.floats:
        raise RunError("give --float FILE and --corpus DIR (or --report)")
    found: dict[str, list[Path]] = {}
    for text in args.floats:
        name, equals, path = text.partition("=")
        found.setdefault(name if equals else "", []).append(Path(path if equals else text))
    if absent := [str(p) for paths in found.values() for p in paths if not p.is_file()]:
        raise RunError(f"{absent[0]}: no such file")
    return found


def _recognise(args: argparse.Namespace, experiments: Any) -> Any:
    networks = _networks(args)
    from nnac.commands._search import OPTIONS, way_of
    from nnac.report.runs import RunError
    from nnac.sweep import Hybrids, Recognise

    if bool(args.alignments) != bool(args.graph):
        raise RunError("--alignments and --graph go together: both are of hybrids")
    hybrids = Hybrids(Path(args.alignments), Path(args.graph), args.device) if args.graph else None
    asked = [o for o in OPTIONS if o != "graph" and getattr(args, o) is not None]
    if asked and experiments.search is not None:
        raise RunError(f"{experiments.path} says in its [search] how runs are searched: --{asked[0].replace('_', '-')} "
                       "is for one that does not")
    ways = (lambda front, called: way_of(args, front, called)) if asked else None
    return Recognise(Path(args.corpus), networks, args.utterances, steps=args.steps, hybrids=hybrids, ways=ways)


def _passed(args: argparse.Namespace) -> list[str]:
    from nnac.commands._search import OPTIONS

    out = [args.experiments, "--corpus", args.corpus, "--results", args.results, "--runs", args.runs]
    out += [a for f in args.floats for a in ("--float", f)]
    for option in ("utterances", "steps", "alignments", "device", *OPTIONS):
        out += [f"--{option.replace('_', '-')}={value}"] if (value := getattr(args, option)) is not None else []
    return out


def _one(args: argparse.Namespace, experiments: Any, results: Path) -> int:
    from nnac.children import end_with_parent
    from nnac.report import outcomes, runs

    end_with_parent()
    name, _, seed = args.one.rpartition(":")
    row = next((r for r in experiments.rows if r.name == name), None)
    if row is None or not seed.isdigit():
        raise runs.RunError(f"no run is called `{args.one}`")
    recognise = _recognise(args, experiments)
    identity = recognise.identity(experiments, row, int(seed))
    folder = Path(args.runs) / (f"{name}-s{seed}-{identity.short}" if identity else f"{name}-s{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    outcome = recognise(experiments, row, int(seed), folder)
    outcomes.save(results, outcome)
    print(json.dumps({"row": name, "seed": int(seed), "wer": round(outcome.rate, 3), "bytes": outcome.bytes,
                      "cycles_per_frame": outcome.cycles_per_frame, "wall_s": outcome.wall_s}))
    return 0


def _host(args: argparse.Namespace, experiments: Any, results: Path) -> int:
    """Times of the models of the rows marked host, of those that are trained; then the report."""
    from nnac import checkpoint, host
    from nnac.progress import progress
    from nnac.report import outcomes, runs

    host.one_thread()
    recognise = _recognise(args, experiments)
    lacking: list[str] = []
    todo = [r for r in experiments.rows if r.host and (not args.only or r.name in args.only)]
    with progress("host", len(todo)) as advance:
        for row in todo:
            identity = recognise.identity(experiments, row, 0)
            module = Path(args.runs) / f"{row.name}-s0-{identity.short if identity else ''}" / "module.nnc"
            result = outcomes.path_of(results, row.name, 0)
            if not module.is_file() or not result.is_file():
                lacking.append(row.name)
                advance(1, f"{row.name}: not trained")
                continue
            digest, wer = checkpoint.digest_of(module), outcomes.load(result).rate
            place = host.path_of(results, row.name, 0)
            if not place.is_file() or (done := host.load(place)).module != digest or done.wer != round(wer, 3):
                host.save(results, host.measure(module, Path(args.corpus), row.name, 0, wer, digest))
            advance(1, row.name)
    _report(args, experiments, results)
    if lacking:
        raise runs.RunError(f"not trained yet, so not timed: {', '.join(lacking)} (the same command without --host)")
    return 0


def _report(args: argparse.Namespace, experiments: Any, results: Path, useless: Container[Path] = ()) -> None:
    from nnac import host
    from nnac.report import outcomes
    from nnac.report import results as report

    found = outcomes.load_all(results, [(r.name, r.seeds) for r in experiments.rows], useless)
    marked = {r.name: r.shown for r in experiments.rows if r.host}
    timed = host.markdown([t for t in host.of_results(host.load_all(results), found) if t.row in marked], marked)
    inside = results.resolve().is_relative_to(Path(args.out).resolve().parent)
    report.write(experiments, found, Path(args.out), results if inside else None, timed)
    print(f"{args.out}: {sum(map(len, found.values()))} runs of {sum(r.seeds for r in experiments.rows)}")
