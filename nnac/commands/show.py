"""``nnac show FILE``: any stage of the pipeline as text: what a policy, a checkpoint or a program has become.

    plan       each layer, kernel and gate with its settings            of a policy, a checkpoint, a program
    graph      the integer operators, unbound: scales still `?`         of a policy, a checkpoint, a program
    bound      the integer operators with scales and constants          of a checkpoint
    program    entry points, memories, cycles                           of a checkpoint (compiled now), a program

Without ``--stage``: the last of these that the file holds.  The same values print from Python: `nnac.compiler` has one
function a stage.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnac.errors import UserError

if TYPE_CHECKING:
    from nnac.ir import QGraph
    from nnac.plan import Plan
    from nnac.program import Program

STAGES = {"policy": ("plan", "graph"), "checkpoint": ("plan", "graph", "bound", "program"),
          "program": ("plan", "graph", "program")}


def register(subparsers: Any) -> None:
    from nnac.cli import add_policy_arguments, source

    p = subparsers.add_parser("show", help="print any stage: plan, graph, bound graph, program", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=source, metavar="FILE",
                   help="a policy, what `nnac train` wrote, or what `nnac compile` wrote")
    p.add_argument("--stage", choices=("plan", "graph", "bound", "program"),
                   help="default: the last one that the file holds")
    add_policy_arguments(p)
    p.add_argument("--json", action="store_true", help="the same as JSON")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    kind = kind_of(args.file)
    stage = args.stage or STAGES[kind][-2 if kind == "checkpoint" else -1]
    if stage not in STAGES[kind]:
        made_by = {"bound": "`nnac train` writes a checkpoint, which has it",
                   "program": "`nnac compile` makes one of a checkpoint"}[stage]
        sys.stderr.write(f"nnac show: {args.file} is a {kind}: it has no stage `{stage}` (it has: "
                         f"{', '.join(STAGES[kind])}); {made_by}\n")
        return 2
    if kind != "policy" and (args.define or args.policy):
        sys.stderr.write(f"nnac show: -D and --policy choose within a policy file; {args.file} is a {kind}\n")
        return 2
    value = at_stage(args, kind, stage)
    print(json.dumps(plain(value)) if args.json else value)
    return 0


def kind_of(path: str) -> str:
    """policy | checkpoint | program, by what is in the file.  UserError: no such file, or another kind."""
    place = Path(path)
    if path.endswith(".nnac"):
        return "policy"
    if not place.is_file():
        raise UserError(f"{path}: {'a folder' if place.is_dir() else 'no such file'}")
    from safetensors import SafetensorError, safe_open

    from nnac import checkpoint

    try:
        with safe_open(path, "numpy") as file:
            names = file.metadata() or {}
    except (SafetensorError, OSError):
        names = {}
    if checkpoint.FORMAT in names:
        return "checkpoint"
    if "nnac" in names:
        return "program"
    raise UserError(f"{path}: neither a policy (*.nnac), nor a checkpoint, nor a program")


def at_stage(args: argparse.Namespace, kind: str, stage: str) -> Plan | QGraph | Program:
    """The value of a stage.  DiagnosticError, CheckpointError, ProgramError, CompileError: what is wrong with the
    file."""
    from nnac import compiler
    from nnac.plan import Plan

    if kind == "policy":
        from nnac.cli import definitions
        from nnac.policy import load

        plan = load(args.file, args.policy, **definitions(args.define)).plan
        return plan if stage == "plan" else compiler.lower(plan)
    if kind == "program":
        from nnac.program import Program

        made = Program.load(args.file)
        if stage == "program":
            from nnac.emulator.image import image

            for entry in image(made).entries.values():
                _ = entry.timing                   # counted, not believed: MachineError where the file promises others
            return made
        if not made.plan:
            raise UserError(f"{args.file}: was compiled without a policy, so it carries no plan")
        plan = Plan.from_json(dict(made.plan))
        return plan if stage == "plan" else compiler.lower(plan)
    trained = compiler.trained(args.file)
    if stage in ("plan", "graph"):
        return trained.plan if stage == "plan" else compiler.lower(trained.plan)
    return compiler.bind(trained) if stage == "bound" else compiler.program(trained)


def plain(value: Any) -> dict[str, Any]:
    """A stage as JSON: a plan whole; of a graph and a program what the text shows (weights and instructions are not
    text)."""
    from nnac.ir import QGraph
    from nnac.plan import Plan

    if isinstance(value, Plan):
        return value.to_json()
    if isinstance(value, QGraph):
        return {"graph": value.name, "entries": {e: {"inputs": list(value.inputs[e]),
                                                     "outputs": list(value.outputs[e])} for e in value.inputs},
                "values": [{"name": v.name, "width": v.width, "bits": v.bits, "rate": v.rate, "scale": v.scale,
                            "zero_point": v.zero_point}
                           for v in value.values.values()],
                "nodes": [{"path": n.path, "operator": n.op, "entry": n.entry, "inputs": list(n.inputs),
                           "output": n.output,
                           "constants": {k: f"{c.dtype}{list(c.shape)}" for k, c in n.constants.items()},
                           "states": [s.name for s in n.states]} for n in value.nodes]}
    from nnac.commands.compile import summary

    return summary(value)
