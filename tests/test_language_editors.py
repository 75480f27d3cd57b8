"""The highlighting grammar knows the vocabulary of the language."""

import json
import re
from pathlib import Path

from nnac.language.blocks import TRAINING
from nnac.language.settings import SETTINGS
from nnac.language.tables import tables
from nnac.units import UNITS

FOLDER = Path(__file__).parents[1] / "editors" / "vscode"
GRAMMAR = json.loads((FOLDER / "syntaxes" / "nnac.tmLanguage.json").read_text(encoding="utf-8"))["repository"]


def match(rule: str, text: str) -> re.Match:
    found = re.search(GRAMMAR[rule]["match"], text)
    assert found is not None, (rule, text)
    return found


def test_every_unit_is_coloured():
    for unit in UNITS:
        assert match("number", f"  12.5k {unit}\n")[2] == unit
        assert match("number", f"(12 {unit})")[2] == unit
    assert match("number", "4k steppes")[2] is None


def test_every_setting_and_sentence_is_coloured():
    for name in [*SETTINGS, *TRAINING]:
        assert match("setting", f"    {name}  x")[1] == name
    for word in set(tables().keywords) - {"over", "extends", "layers"}:
        rules = [r for r in ("declaration", "parameter", "sentence")
                 if re.search(GRAMMAR[r]["match"], f"{word} name {{")
                 or re.search(GRAMMAR[r]["match"], f"  {word} x = 5")]
        assert rules, word


def test_every_pattern_compiles_and_every_included_rule_exists():
    text = (FOLDER / "syntaxes" / "nnac.tmLanguage.json").read_text(encoding="utf-8")
    for name in re.findall(r'"include": "#(\w+)"', text):
        assert name in GRAMMAR
    for pattern in re.findall(r'"(?:match|begin|end)": ("(?:[^"\\\\]|\\\\.)*")', text):
        re.compile(json.loads(pattern))


def test_widths_and_constants():
    assert match("width", "weights int16 per_group(3)")[0] == "int16" and match("constant", "place cpu")[0] == "cpu"
