"""The house: imports run one way, light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "nnac"
# from the ground up: a room may import from itself and from rooms before it
ROOMS = """
errors
files
arrays
children
shipped
console
checked
words
progress
units
diagnostics
rendering
attributes
formats
limits
energy
entry
arith
codec
isa
ir
ops
verify
bind
evaluate
model
target
vectors
placement
compression
plan
lower
checkpoint
speech
images
language
policy
program
emulator
graphblas
rtl
schedule
hybrid
decode
capture
train
imports
onnx
export
companions
executors
compare
runtime
latency
tensors
report
compiler
host
cli
demo
fused
sweep
commands
""".split()


def imports(path: Path) -> set[str]:
    """Rooms that a file imports from, at any depth of the file, type-checking blocks included."""
    out = set()

    def visit(node):
        if isinstance(node, ast.Import):
            out.update(a.name.split(".")[1] for a in node.names if a.name.startswith("nnac."))
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = (path.relative_to(HOUSE).parts[: -node.level]
                        if node.level <= len(path.relative_to(HOUSE).parts) else ())
                names = [*base, *(node.module or "").split(".")] if node.module else [*base]
                names = [n for n in names if n]
                out.update([names[0]] if names else [a.name for a in node.names])
            elif node.module == "nnac":
                out.update(a.name for a in node.names)
            elif (node.module or "").startswith("nnac."):
                out.add(node.module.split(".")[1])
        for child in ast.iter_child_nodes(node):
            visit(child)
    visit(ast.parse(path.read_text("utf-8")))
    return out & {p.stem for p in HOUSE.iterdir()}


def room(path: Path) -> str:
    first = path.relative_to(HOUSE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda p: str(p.relative_to(HOUSE)))
def test_imports_run_one_way(path):
    own = room(path)
    if own in ("__init__", "__main__", "_data"):
        return
    assert own in ROOMS, f"{own} is a new room: say in ROOMS where it stands"
    above = {r for r in imports(path) if r in ROOMS and ROOMS.index(r) > ROOMS.index(own)}
    assert not above, f"{path.relative_to(HOUSE)} imports from above: {', '.join(sorted(above))}"


def test_no_files_import_each_other():
    """Imports for type checking included: what two files say of each other belongs in one, or in a third below both."""
    from benchmarks.bench_house import circles

    assert circles() == []


def test_no_operator_is_named_outside_its_own_files():
    """... where a kind is compared with a string, the operator lacks a fact."""
    from benchmarks.bench_house import op_string_comparisons

    assert op_string_comparisons() == []


SPEC = "specs/rnnt_int8.nnac"


@pytest.mark.parametrize("command", [["lint", SPEC], ["explain", SPEC], ["fmt", "--check", SPEC], ["--help"]],
                         ids=lambda c: c[0])
def test_light_commands_import_nothing_heavy(command):
    program = ("import sys; from nnac.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
               "print('HEAVY', sorted({'torch', 'numpy', 'networkx', 'scipy'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, cwd=HOUSE.parent,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
