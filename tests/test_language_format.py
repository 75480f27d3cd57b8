"""Formatting: one layout, comments kept, meaning untouched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings

from nnac.diagnostics import DiagnosticError, Source
from nnac.language.format import format_text
from nnac.language.parse import parse
from nnac.language.tables import data_file
from tests.language_policies import policies

SPECS = sorted(data_file("specs").rglob("*.nnac"))


@settings(max_examples=80, deadline=None)
@given(policies())
def test_parse_after_format_is_parse(text):
    once = format_text(text)
    assert parse(Source("t", once)).declarations == parse(Source("t", text)).declarations
    assert format_text(once) == once, "formatting a formatted text changes nothing"
    assert sorted(re.findall(r"#.*", once)) == sorted(c.rstrip() for c in re.findall(r"#.*", text)), "comments are kept"
    assert max((len(x) for x in once.splitlines() if "#" not in x), default=0) <= 160


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_shipped_specs_are_formatted(path):
    text = path.read_text(encoding="utf-8")
    assert format_text(text) == text, f"run `nnac fmt {path}`"


def test_layout():
    assert format_text('''policy   p{   model rnnt( size = "small" ) ;target edge
let a=1+2*( 3-4 )   # sum


layers   encoder . lstm [ 0 .. 2 ] . { input , recurrent },joint.*{weights int8;cell int16 # why
codec raw}
layers **{codec raw;pin never}}
''') == '''policy p {
  model   rnnt(size="small")
  target  edge
  let     a = 1 + 2 * (3 - 4)  # sum

  layers encoder.lstm[0..2].{input, recurrent}, joint.* {
    weights  int8
    cell     int16  # why
    codec    raw
  }
  layers ** { codec raw; pin never }
}
'''


def test_comments_stay_where_they_are():
    text = '''# first

# about p
policy p {  # opening
  # before
  let a = 1  # one
  let bb = 2  # two

  layers ** {
    # inside
    weights  gq(5,  # five bits
                snap=int8)
  }  # closing
  # last
}  # end
# after
'''
    out = format_text(text)
    assert re.findall(r"#.*", out) == re.findall(r"#.*", text)
    assert format_text(out) == out and "  # closing" in out and "gq(5,  # five bits" in out


def test_long_calls_are_broken_between_arguments():
    text = "policy p {\n  layers ** {\n    sparsity csp(75%, " + ", ".join(f"argument_{i}={i}"
                                                                           for i in range(20)) + ")\n  }\n}\n"
    out = format_text(text)
    assert len(out.splitlines()) > 5 and max(map(len, out.splitlines())) <= 120 and format_text(out) == out


def test_long_paths_are_broken_after_commas():
    paths = [f"encoder.a_rather_long_name_{i}.{{input, recurrent}}" for i in range(6)]
    long = "  layers {" + "x" * 70 + "," + "y" * 70 + "} { cell int16 }\n"
    out = format_text("policy p {\n  layers " + ", ".join(paths) + " { weights int8 }\n" + long + "}\n")
    assert format_text(out) == out and len(out.splitlines()) > 6
    commented = format_text("policy p {\n  layers a, # first\n    b { # open\n    weights int8\n  }\n}\n")
    assert format_text(commented) == commented and "# first" in commented and "# open" in commented


def test_line_ends_become_one_kind():
    assert format_text("policy p {\r\n  let a = 1\r\n}\r\n") == "policy p {\n  let a = 1\n}\n"


def test_a_text_that_does_not_parse_is_not_touched():
    with pytest.raises(DiagnosticError):
        format_text("policy p { let a }")


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n"])
def test_nearly_nothing(text):
    assert format_text(text) == text.strip("\n") + ("\n" if text.strip() else "")


def test_formatting_time_is_linear():
    import time

    rule = "layers encoder.lstm[0].input { weights gq(5, space=mu_law(255)); codec raw }  # c\n"

    def seconds(n):
        text = "policy p {\n" + rule * n + "}\n"
        best = float("inf")
        for _ in range(3):
            t = time.process_time()
            format_text(text)
            best = min(best, time.process_time() - t)
        return best

    assert seconds(800) < 8 * seconds(200), "four times the text, well below sixteen times the time"


def test_the_shipped_specs_exist():
    names = {p.relative_to(data_file("specs")).as_posix() for p in SPECS}
    papers = {f"papers/{n}.nnac" for n in ("aat", "gq5", "gq_mixed", "s8bqat", "csp", "int4_lstm", "int4_rnnt")}
    assert names >= papers | {"rnnt_int8.nnac", "targets/edge.nnac", "targets/tiny.nnac", "targets/large.nnac",
                              "targets/rapid.nnac"}
    assert Path(data_file("grammar", "nnac.lark")).exists()
