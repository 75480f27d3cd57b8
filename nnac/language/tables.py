"""The parse tables: what Lark makes of ``grammar/nnac.lark``, kept as plain JSON beside it.

Building an LALR parser takes Lark a fifth of a second and importing it a twelfth, too long for a linter that answers
while one types. So the tables are computed once (``make grammar``) and read from ``grammar/nnac.tables.json``, plain
data, together with the grammar they were made from; when that is not the grammar that lies beside them, they are
computed anew with Lark.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen


@frozen
class Tables:
    """An LALR(1) automaton.

    lexer     name and pattern of each terminal, in the order they are tried      keywords   text -> terminal
    rules     (nonterminal, children, builder) of each production                 actions
    state -> terminal -> shift n >= 0, reduce ~n
    gotos     state -> nonterminal -> state                                       start
    first state;  end: the accepting one
    spelling  terminal -> how people write it, for messages
    """

    lexer: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    keywords: dict[str, str]
    rules: tuple[tuple[str, int, str], ...]
    actions: tuple[dict[str, int], ...]
    gotos: tuple[dict[str, int], ...]
    start: int
    end: int
    spelling: dict[str, str]


def data_file(*parts: str) -> Path:
    """A file of ``grammar/`` or ``specs/``: inside the package in a wheel, at the top level in a checkout."""
    packaged = Path(__file__).parents[1] / "_data" / Path(*parts)
    return packaged if packaged.exists() else Path(__file__).parents[2] / Path(*parts)


def compute(grammar: str) -> dict[str, Any]:
    """The tables of a grammar, as JSON.  Needs Lark."""
    import lark
    from lark.parsers.lalr_analysis import Shift

    parser = lark.Lark(grammar, parser="lalr", lexer="contextual", start="start", keep_all_tokens=True,
                       maybe_placeholders=False)
    table = parser.parser.parser._parse_table  # type: ignore[attr-defined]
    numbers: dict[Any, int] = {}
    rules: dict[Any, int] = {}
    waiting = [table.start_states["start"], table.end_states["start"]]
    # numbered in the order of a walk from the start, so that the file is always the same
    while waiting:
        state = waiting.pop(0)
        if state in numbers:
            continue
        numbers[state] = len(numbers)
        for _, (action, argument) in sorted(table.states[state].items(), key=lambda item: str(item[0])):
            if action is Shift:
                waiting.append(argument)
            else:
                rules.setdefault(argument, len(rules))
    terminals = {t.name: t for t in parser.terminals}
    keywords = {t.pattern.value: n for n, t in terminals.items() if t.pattern.type == "str"
                and t.pattern.value.isalpha()}
    shapes = {n: t for n, t in terminals.items() if n not in keywords.values()}
    order = sorted(shapes, key=lambda n: (shapes[n].pattern.type == "str", -shapes[n].priority,
                                          -len(shapes[n].pattern.value) if shapes[n].pattern.type == "str" else 0))
    names = set(terminals) | {"$END"}
    actions: list[dict[str, int]] = []
    gotos: list[dict[str, int]] = []
    for state in numbers:
        by_symbol = sorted(table.states[state].items(), key=lambda item: str(item[0]))
        actions.append({s: numbers[a] if k is Shift else ~rules[a] for s, (k, a) in by_symbol if s in names})
        gotos.append({s: numbers[a] for s, (k, a) in by_symbol if s not in names})
    return {
        "grammar": grammar,
        "lexer": [[n, shapes[n].pattern.to_regexp()] for n in order], "ignored": list(parser.ignore_tokens),
            "keywords": keywords,
        "rules": [[str(r.origin.name), len(r.expansion), r.alias or str(r.origin.name)] for r in rules],
        "actions": actions, "gotos": gotos, "start": numbers[table.start_states["start"]],
            "end": numbers[table.end_states["start"]],
        "spelling": {n: t.pattern.value for n, t in terminals.items() if t.pattern.type == "str"},
    }


@cache
def tables() -> Tables:
    """The tables of the grammar in force."""
    grammar = data_file("grammar", "nnac.lark").read_text(encoding="utf-8")
    stored = data_file("grammar", "nnac.tables.json")
    data = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    if data.get("grammar") != grammar:
        data = json.loads(json.dumps(compute(grammar)))
    return Tables(tuple(map(tuple, data["lexer"])), tuple(data["ignored"]), data["keywords"],
                  tuple(map(tuple, data["rules"])),
                  tuple(data["actions"]), tuple(data["gotos"]), data["start"], data["end"], data["spelling"])


if __name__ == "__main__":      # make grammar
    text = data_file("grammar", "nnac.lark").read_text(encoding="utf-8")
    data_file("grammar", "nnac.tables.json").write_text(json.dumps(compute(text), separators=(",", ":")) + "\n",
                                                        encoding="utf-8")
    sys.stdout.write("grammar/nnac.tables.json written\n")
