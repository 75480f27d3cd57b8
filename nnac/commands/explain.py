"""``nnac explain FILE [LAYER]``: what a policy decides for each layer, and the line that each decision came from.

LAYER is a selector such as `encoder.lstm[0]` or `**.gate.f`; with it, the whole chain of rules behind each setting is
shown. With --engine graphblas, FILE is a checkpoint: its kernels, how dense they are, and what multiplies them at each
batch; --matrices DIR writes each of them, its integers, as a Matrix Market file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.language.resolution import Resolution
    from nnac.plan import Origin


def register(subparsers: Any) -> None:
    from nnac.cli import add_policy_arguments, folder, source

    p = subparsers.add_parser("explain", help="show each setting of each layer with the line it came from",
                              description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=source, nargs="?", metavar="FILE")
    p.add_argument("layer", nargs="?", metavar="LAYER", help="a selector")
    add_policy_arguments(p)
    p.add_argument("--json", action="store_true", help="the resolved plan as JSON, origins included")
    p.add_argument("--engine", metavar="NAME",
                   help="of a checkpoint: what this engine chose for each kernel (graphblas)")
    p.add_argument("--matrices", type=folder, metavar="DIR",
                   help="with --engine graphblas: the kernels as DIR/KERNEL.mtx")
    p.add_argument("--schema", action="store_true", help="the JSON Schema of that, and nothing else")
    p.add_argument("--methods", action="store_true",
                   help="every compression method with its arguments, and nothing else")
    p.add_argument("--settings", action="store_true", help="every setting with an example, and nothing else")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.schema:
        from nnac.plan import schema_text

        print(schema_text(), end="")
        return 0
    if args.methods or args.settings:
        from nnac.language import manual

        print(manual.methods() if args.methods else manual.settings())
        return 0
    if args.file is None:
        sys.stderr.write("nnac explain: which file?  (nnac explain specs/rnnt_int8.nnac)\n")
        return 2
    if args.matrices and not args.engine:
        sys.stderr.write("nnac explain: --matrices writes the kernels of a checkpoint: give --engine graphblas\n")
        return 2
    return _engine(args) if args.engine else _explain(args)


def _engine(args: argparse.Namespace) -> int:
    """What an engine chose: a row a kernel."""
    from nnac.errors import UserError
    from nnac.executors import Subject, executor

    made = executor(args.engine, Subject.load(args.file))
    choices = getattr(made, "choices", None)
    if choices is None:
        raise UserError(f"the engine `{args.engine}` has nothing to choose; graphblas has")
    rows = choices()
    if args.matrices:
        from nnac.graphblas.matrices import Entries, write_matrix

        Path(args.matrices).mkdir(parents=True, exist_ok=True)
        for name, kernel in getattr(made, "kernels")():  # noqa: B009 (an engine that chooses has kernels)
            write_matrix(str(Path(args.matrices) / f"{name}.mtx"), Entries.of(kernel.weight))
    if args.json:
        print(json.dumps(rows))
        return 0
    cells = [[*rows[0]], *([f"{v:.2%}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    return 0


def _explain(args: argparse.Namespace) -> int:
    from nnac import rendering
    from nnac.cli import colour, definitions
    from nnac.diagnostics import DiagnosticError
    from nnac.language.check import check_file
    from nnac.policy import main_policy

    checked = check_file(Path(args.file), args.policy, definitions(args.define))
    if checked.errors:
        raise DiagnosticError(checked.diagnostics)
    warnings = [d for d in checked.diagnostics if d.severity == "warning"]
    if warnings:
        sys.stderr.write(rendering.text(warnings, colour=colour(sys.stderr)) + "\n\n")
    names = list(dict.fromkeys(r.name for r in checked.resolutions))
    chosen = args.policy or (main_policy(checked.file, names) if names else None)
    found = [r for r in checked.resolutions if r.name == chosen and r.plan is not None]
    if not found:
        sys.stderr.write(f"nnac explain: {args.file} has no policy with a model and a target\n")
        return 1
    if args.json:
        plans = [r.plan.to_json() for r in found if r.plan is not None]
        print(json.dumps(plans[0] if len(plans) == 1 else plans))
        return 0
    if len(found) > 1:
        print(f"variants: {', '.join(v for v, r in checked.variants.items() if r in found)}\nshown is the first; "
              f"choose one with -D\n")
    if args.layer is not None:
        return _layer(found[0], args.layer)
    print(overview(found[0]))
    return 0


def overview(r: Resolution) -> str:
    """All layers, kernels and (where they differ) gates: setting, value, line."""
    from nnac.language.blocks import HEARD
    from nnac.language.estimate import whole
    from nnac.language.rules.budget import shown

    plan, model = r.plan, r.model
    assert plan is not None and model is not None
    cost = whole(plan, model)
    lines = [f"{plan.name}: {plan.model} on {plan.target.name}",
             f"{model.weights:,} weights in about {cost.weight_bytes:,} bytes ({cost.bits_per_weight:.2f} bits each); "
             f"a step takes about "
             f"{cost.seconds * 1e3:.2f} ms, {cost.cycles:,} cycles; expected, before training"]
    if cost.wait_seconds:
        frames = plan.frames("encoder")
        lines.append(f"{frames} encoder steps are computed together: the first waits {cost.wait_seconds * 1e3:,.0f} ms "
                     f"for the others, then "
                     f"{cost.call_seconds * 1e3:.2f} ms for the whole call")
    if plan.decode is not None:
        parts = ", ".join(f"{entry} {cycles:,.0f}" for entry, cycles in cost.searched.items())
        without = ("; without its language models, whose size no policy says: the compiler counts them"
                   if cost.unknown else "")
        lines.append(f"search {plan.decode}: about {sum(cost.searched.values()):,.0f} cycles a frame ({parts}), "
                     f"real-time factor {cost.rtf:.4f}{without}; an estimate: `nnac compile` counts the calls")
    lines.append("")
    for site in plan:
        if site.kind == "gate" and site.settings == plan[site.path.rpartition(".gate.")[0]].settings:
            continue
        depth = {"layer": 0, "kernel": 1, "gate": 2}[site.kind]
        kernel = model.kernels.get(site.path)
        shape = (f"  {kernel.rows} x {kernel.cols}" if kernel else f"  {model.by_path[site.path].kind}" if depth == 0
                 else "")
        lines.append(f"{'  ' * depth}{site.path}{shape}")
        for name, value in site.settings.items():
            chain = plan.origin(site.path, name)
            if chain[-1].file is None and name in ("codec", "pin", "frames", "place", "bias", "accumulator"):
                continue                                     # defaults that nobody asked about
            lines.append(f"{'  ' * depth}  {name:<12} {value!s:<44} {_short(chain[-1])}")
    if plan.budgets:
        lines.append("")
        for b in plan.budgets:
            later = "`nnac latency` decides"
            about = later if b.quantity in HEARD else f"about {shown(b.quantity, cost.quantity(b.quantity))}"
            lines.append(f"budget  {b.text:<28} {about}")
    return "\n".join(lines)


def _short(origin: Origin) -> str:
    return (f"{origin.file}:{origin.line}" if origin.file else origin.rule if origin.text.count(" ") != 2
            else origin.text)


def _layer(r: Resolution, written: str) -> int:
    """The chain of rules behind each setting of the sites that a selector means."""
    from nnac.diagnostics import Source
    from nnac.language.chains import chains
    from nnac.language.parse import parse
    from nnac.language.select import matched, misses

    parsed = parse(Source("LAYER", f"policy p {{ layers {written} {{ }}\n}}"))
    assert r.sites is not None and r.plan is not None
    if parsed.problems or not parsed.policies or not parsed.policies[0].items:
        sys.stderr.write(f"nnac explain: `{written}` is not a selector; for example `encoder.lstm[0].input`\n")
        return 2
    selectors = parsed.policies[0].items[0].node.selectors
    mask = 0
    for selector in selectors:
        mask |= matched(r.sites, selector)
    if not mask:
        for miss in misses(r.sites, selectors[0]):
            sys.stderr.write(f"nnac explain: {miss.message}\nhelp: {miss.help}\n")
        return 1
    print("\n".join(chains(r.plan, r.sites.named(mask))))
    return 0
