"""What the house looks like, counted: how often a concept is said outside its own room.

    op_string_comparisons
    comparisons of an operator's or a layer's kind with a name, outside the operators' own rooms (and the tests)
    untyped_definitions        functions of which an argument or the result has no type
    circles                    groups of files that import each other, type-checking imports included
    lines_over_120             lines of code
    files_for_an_operator, files_for_an_instruction
    files that adding one takes: the trials that the tests keep, `tests.test_operator_added` and
    `tests.test_instruction`

The last line is one JSON object.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import networkx

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "nnac"
OWN_ROOMS = ("ops", "train/ops", "schedule/ops")
# every kind that a layer of a model graph, a node of a graph of integers or a target's list has ever had
KINDS = frozenset(
    "stack linear lstm lstm_coupled lstm_normed recurrence gru layer_norm embedding add multiply tanh sigmoid "
    "log_softmax lookup relu linear_relu concat softmax "
    "convolution attention gelu swish glu".split())


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(HOUSE.rglob("*.py"))


def _names(node: ast.expr) -> Iterator[str]:
    """String constants of an expression, those in tuples, lists and sets too."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        for element in node.elts:
            yield from _names(element)


def op_string_comparisons(root: Path = HOUSE) -> list[tuple[str, int]]:
    """(file, line) of every comparison of an expression called ``op`` or ``kind`` with the name of an operator."""
    found = []
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).as_posix()
        if place.startswith(tuple(f"{room}/" for room in OWN_ROOMS)):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                asked = any(getattr(s, "attr", getattr(s, "id", "")) in ("op", "kind") for s in sides)
                if asked and any(name in KINDS for s in sides for name in _names(s)):
                    found.append((place, node.lineno))
    return found


def untyped_definitions() -> list[tuple[str, int]]:
    """(file, line) of every function of which an argument (but self, cls) or the result has no type."""
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                a = node.args
                arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x)]
                bare = [x for x in arguments if x.annotation is None and x.arg not in ("self", "cls")]
                # like mypy: `__init__` with a typed argument needs no result
                result = node.returns is not None or (node.name == "__init__" and len(arguments) > 1)
                if bare or not result:
                    found.append((path.relative_to(HOUSE).as_posix(), node.lineno))
    return found


def module_name(path: Path) -> str:
    """``nnac.train.module`` of its file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, modules: frozenset[str]) -> set[str]:
    """Modules of the house that a file names in an import at its top or under TYPE_CHECKING; those within functions are
    excused: they run late."""
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    out: set[str] = set()

    def name(text: str) -> None:
        while text:
            if text in modules:
                out.add(text)
                return
            text = text.rpartition(".")[0]

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name(alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
                source = ".".join(x for x in (base, node.module or "") if x)
                for alias in node.names:
                    name(f"{source}.{alias.name}")
            elif isinstance(node, (ast.If, ast.Try)):
                visit(node.body)
                visit(node.orelse)

    visit(ast.parse(path.read_text("utf-8")).body)
    return {m for m in out if m.startswith("nnac")} - {module_name(path)}


def circles() -> list[list[str]]:
    """Groups of files that import each other.

    A package's own ``__init__`` is left out as a target where the file lies inside it: ``from nnac import arith`` in
    ``nnac/bind.py`` names ``nnac.arith``, and importing any module runs its package first in any case.
    """
    modules = frozenset(map(module_name, files()))
    graph = networkx.DiGraph()
    for path in files():
        own = module_name(path)
        graph.add_node(own)
        graph.add_edges_from((own, other) for other in imports(path, modules) if not own.startswith(f"{other}."))
    return sorted(sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1)


def lines_over_120() -> list[tuple[str, int]]:
    """(file, line) of every line of code over 120 columns."""
    return [(path.relative_to(HOUSE).as_posix(), n) for path in files()
            for n, line in enumerate(path.read_text("utf-8").splitlines(), 1) if len(line) > 120]


def main() -> None:
    from tests import test_instruction, test_operator_added

    comparisons, untyped, groups, wide = op_string_comparisons(), untyped_definitions(), circles(), lines_over_120()
    for what, places in (("comparisons of a kind with a name", comparisons), ("functions without types", untyped),
                         ("lines over 120", wide)):
        by_file: dict[str, int] = {}
        for place, _ in places:
            by_file[place] = by_file.get(place, 0) + 1
        print(f"{what}: {len(places)}" + "".join(f"\n    {n:>4}  {place}"
                                                 for place, n in sorted(by_file.items(), key=lambda x: -x[1])[:12]))
    print("circles:" + "".join(f"\n    {' ~ '.join(group)}" for group in groups))
    print(json.dumps({"op_string_comparisons": len(comparisons), "untyped_definitions": len(untyped),
                      "circles": len(groups), "lines_over_120": len(wide),
                      "files_for_an_operator": len(test_operator_added.FILES),
                      "files_for_an_instruction": len(test_instruction.FILES)}))


if __name__ == "__main__":
    main()
