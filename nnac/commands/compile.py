"""``nnac compile CHECKPOINT --out PROGRAM``: a trained module becomes a scheduled program for its policy's machine.

Language models beside it (--lm, --source-lm: what `nnac train` made of a `model lm(...)` policy for the same machine
and the recogniser's own tokens; without the options, those that the policy's `decode` block names) become entries of
the same program; `nnac run --search beam --lm-scale W` then asks them.  The program is proved free of races and
deadlock before it is written, and carries everything that running it needs.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from nnac.errors import UserError


class CompileOptionError(UserError):
    """An option that names the wrong kind of file; one line."""


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source, whole

    p = subparsers.add_parser("compile", help="compile a trained module to a program", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", type=source, metavar="CHECKPOINT", help="what `nnac train` wrote")
    p.add_argument("--out", type=sink(), required=True, metavar="PROGRAM")
    p.add_argument("--lm", type=source, metavar="CHECKPOINT",
                   help="language model of the target's domain: the entry `lm`")
    p.add_argument("--source-lm", type=source, metavar="CHECKPOINT",
                   help="language model of the training text: the entry `source_lm`")
    p.add_argument("--beam", type=whole(1, 1024), metavar="K",
                   help="hypotheses that the search will hold: entries that take several at once (what the policy's "
                        "`decode` says; 8 with a language model; else 1)")
    p.add_argument("--json", action="store_true", help="the report as JSON")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.commands._search import languages_of
    from nnac.companions import of_policy
    from nnac.compiler import program, trained

    recogniser = trained(args.checkpoint)
    languages = languages_of(args, recogniser.front.tokens) if args.lm or args.source_lm else {}
    for name, path in (("lm", args.lm), ("source_lm", args.source_lm)):
        if path is not None and name not in languages:
            raise CompileOptionError(f"{path}: not what `nnac train` wrote; n-gram models stay on the host: give it to "
                                     "`nnac run`")
    made = program(recogniser, languages | of_policy(recogniser, languages), args.beam)
    made.save(args.out)
    if args.json:
        print(json.dumps({"program": args.out, **summary(made)}))
    else:
        from nnac.console import console

        out = console()
        print(f"{args.out}: {made.plan.get('name', '')} for `{made.target.name}`, {len(made.to_bytes()):,} bytes")
        for table in tables(made):
            out.print(table)
        print(latency(made))
        if searches(made):
            print(searched(made))
        for line in undecided(made):
            print(line)
    return 0


def summary(program: Any) -> dict[str, Any]:
    """The compile report, plain."""
    return {"policy": program.plan.get("name"), "target": program.target.name, "program_bytes": len(program.to_bytes()),
            "entries": {name: {"cycles": e.cycles, "instructions": len(e.words),
                               "ms": 1e3 * e.cycles / program.target.clock}
                        for name, e in program.entries.items()},
            **{k: program.report[k] for k in ("latency", "search", "layers", "sram", "pinned", "dram", "host")}}


def latency(program: Any) -> str:
    """How long computing takes, and waiting where steps are computed together."""
    t = program.report["latency"]
    others = ", prediction and joint included" if searches(program) else ""
    text = f"latency: {t['step_ms']:.3f} ms of computing a step{others}"
    if t["steps"] > 1:
        text += (f"; {t['steps']:.0f} steps are computed together: the first waits {t['wait_ms']:,.0f} ms for the "
                 f"others, "
                 f"then {t['call_ms']:.3f} ms for the whole call")
    if any(e.backward for e in program.entries.values()):
        text += "; the encoder is bidirectional: its backward passes begin when the utterance has ended"
    return text


def searches(program: Any) -> bool:
    """Whether it is a transducer: what a step takes depends on a search."""
    from nnac.model.rnnt import JOINT

    return any(e.model_entry == JOINT.name for e in program.entries.values())


def searched(program: Any) -> str:
    """What a frame takes with the policy's search."""
    s = program.report["search"]
    parts = ", ".join(f"{entry} {cycles:,}" for entry, cycles in s["entries"].items())
    return (f"search: {s['search']}: about {s['cycles_per_frame']:,} cycles a frame ({parts}), real-time factor "
            f"{s['rtf']:.4f}: cycles are exact, how often each entry is asked is expected")


def undecided(program: Any) -> list[str]:
    """The policy's budgets that no program decides, a line each."""
    from nnac.language.blocks import HEARD

    return [f"budget `{b['text']}`: decided on utterances, by `nnac latency`" for b in program.plan.get("budgets", ())
            if b["quantity"] in HEARD]


def tables(program: Any) -> list[Any]:
    """Entries, and kernels by size, as rich tables."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    clock = program.target.clock

    def table(title: str, first: str, *others: str) -> Table:
        columns = [Column(first, no_wrap=True), *(Column(c, justify="right", no_wrap=True) for c in others)]
        return Table(*columns, title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)

    entries = table("entry points", "entry", "cycles", "ms", "instructions", "DRAM bytes")
    for name, e in program.entries.items():
        entries.add_row(name, f"{e.cycles:,}", f"{1e3 * e.cycles / clock:.3f}", f"{len(e.words):,}",
                        f"{program.report['entries'][name]['dram_bytes']:,}")
    kernels = table("weights", "kernel", "weights", "bytes", "bits each", "codec", "pinned")
    for path, k in program.report["layers"].items():
        kernels.add_row(path, f"{k['weights']:,}", f"{k['bytes']:,}", f"{k['bits']:.2f}", k["codec"],
                        f"{k['pinned']:,}" if k["pinned"] else "")
    total = program.report["layers"].values()
    kernels.add_row("all", f"{sum(k['weights'] for k in total):,}", f"{sum(k['bytes'] for k in total):,}",
                    f"{8 * sum(k['bytes'] for k in total) / max(1, sum(k['weights'] for k in total)):.2f}", "", "",
                    style="bold")
    return [entries, kernels]
