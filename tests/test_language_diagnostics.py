"""Every diagnostic has a bad file and the text it gives, side by side in tests/diagnostics.  ``UPDATE_GOLDEN=1``
rewrites the texts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import nnac
from nnac import rendering
from nnac.diagnostics import Diagnostic, DiagnosticError, Edit, Label, Problem, Source, Span, did_you_mean, near
from nnac.language.check import check, check_text
from nnac.language.fixes import applied, fix_file, unmended
from nnac.language.rules import explain, rules, summaries
from nnac.language.workspace import Workspace

FOLDER = Path(__file__).parent / "diagnostics"
PAIRS = sorted(FOLDER.glob("*.nnac"))


def rendered(path: Path) -> tuple[str, set[str]]:
    """What lint prints about a file, and the codes in it; for a file without mistakes, what loading it says."""
    space = Workspace()
    checked = check(space, path, space.file(path, path.name), None, {})
    found = checked.diagnostics
    if not found:
        with pytest.raises(DiagnosticError) as caught:
            nnac.load(path)
        found = caught.value.diagnostics
    return rendering.text(found).replace(str(FOLDER) + "/", "") + "\n", {d.code for d in found}


@pytest.mark.parametrize("path", PAIRS, ids=lambda p: p.stem)
def test_bad_file_gives_the_expected_text(path):
    text, _ = rendered(path)
    expect = path.with_suffix(".expect")
    if os.environ.get("UPDATE_GOLDEN"):
        expect.write_text(text, encoding="utf-8")
    assert text == expect.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", sorted(rules()))
def test_every_rule_is_documented_by_an_example_that_breaks_it(code):
    path = FOLDER / f"{code}.nnac"
    assert code in rendered(path)[1]
    if code != "not-utf8":                                      # its example in the manual can only describe the byte
        assert path.read_text(encoding="utf-8") == rules()[code].example, "the manual's example is the golden file"
    page = explain(code)
    assert page.known and len(page.text.splitlines()) > 4
    assert summaries()[code].endswith(".")


def test_no_code_is_emitted_that_the_manual_does_not_know():
    seen = set()
    for source in (Path(nnac.__file__).parent / "language").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        for mark in ('report("', 'Diagnostic("', '_report("'):
            seen |= {piece.partition('"')[0] for piece in text.split(mark)[1:]}
    assert {c for c in seen if c} <= set(rules())


def test_all_mistakes_are_found_at_once():
    text = (FOLDER / "many.nnac").read_text(encoding="utf-8")
    found = check_text(text).diagnostics
    assert len({(d.code, d.span.start) for d in found if d.severity == "error"}) >= 10


def test_near_names_are_suggested_best_first():
    assert near("mracoss", ["acosr", "mracos", "gq"]) == ["mracos"]
    assert near("wieghts", ["weights", "bias"]) == ["weights"]
    assert near("MIB", ["MiB", "ms"]) == ["MiB"]
    assert near("zebra", ["weights", "bias"]) == []
    assert near("", ["a"]) in ([], ["a"])
    assert "did you mean `gq`?" in did_you_mean("gg", ["gq", "lsq"])
    assert did_you_mean("x", []) == "there are none"


def test_underlines_stand_under_what_they_mean():
    source = Source("f", "ab\tcd ef\nx")
    out = rendering.one(Diagnostic("c", "m", (Label(Span(source, 3, 5), "here"),)))
    line, marks = out.splitlines()[3:5]
    assert line[marks.index("^"):marks.rindex("^") + 1] == "cd"


def test_wide_characters_do_not_shift_underlines():
    source = Source("f", "日本 bad")
    marks = rendering.one(Diagnostic("c", "m", (Label(Span(source, 3, 6)),))).splitlines()[4]
    assert marks.partition("|")[2] == " " + " " * 5 + "^^^"


def test_control_characters_never_reach_the_terminal():
    source = Source("a\x1b[31m", "x \x1b[2J y\x07")
    out = rendering.one(Diagnostic("c", "mess\x1bage", (Label(Span(source, 2, 4), "la\x00bel"),), ("he\x9blp",)))
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in out)


def test_long_lines_are_cut_around_the_place():
    source = Source("f", "a" * 5000 + " bad " + "b" * 5000)
    out = rendering.one(Diagnostic("c", "m", (Label(Span(source, 5001, 5004)),)))
    assert "bad" in out and max(map(len, out.splitlines())) < 200


def test_labels_in_two_files_show_both():
    a, b = Source("a.nnac", "one"), Source("b.nnac", "two")
    out = rendering.one(Diagnostic("c", "m", (Label(Span(a, 0, 3)), Label(Span(b, 0, 3), "there"))))
    assert "--> a.nnac:1:1" in out and "::: b.nnac:1:1" in out


def test_colours_only_when_asked():
    d = Diagnostic("c", "m", (Label(Span(Source("f", "x"), 0, 1)),))
    assert "\x1b" not in rendering.one(d) and "\x1b[1;31merror" in rendering.one(d, colour=True)


def test_sarif_has_what_the_standard_requires():
    found = check_text((FOLDER / "many.nnac").read_text(encoding="utf-8"), "many.nnac").diagnostics
    log = json.loads(rendering.sarif(found, summaries(), "1"))
    assert log["version"] == "2.1.0" and len(log["runs"]) == 1
    run = log["runs"][0]
    ids = [r["id"] for r in run["tool"]["driver"]["rules"]]
    assert len(run["results"]) == len(found)
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"] and result["level"] in ("error", "warning", "note")
        region = result["locations"][0]["physicalLocation"]["region"]
        assert 1 <= region["startLine"] <= region["endLine"] and region["startColumn"] >= 1
        for fix in result.get("fixes", ()):
            assert fix["artifactChanges"][0]["replacements"][0]["deletedRegion"]["startLine"] >= 1


def test_problems_are_an_exception_group_that_can_be_split():
    with pytest.raises(DiagnosticError) as caught:
        nnac.loads("policy p { laayers ** { } }\npolicy q { lett a = 1 }")
    group = caught.value
    assert len(group.exceptions) == len(group.diagnostics) >= 2 and all(isinstance(e, Problem)
                                                                        for e in group.exceptions)
    some = group.subgroup(lambda e: isinstance(e, Problem) and e.diagnostic.span.start < 20)
    assert isinstance(some, DiagnosticError) and len(some.diagnostics) == 1


def test_fix_mends_spelling_and_leaves_the_rest(tmp_path):
    path = tmp_path / "x.nnac"
    path.write_text('policy x {\n  modell rnnt(size="small")\n  target edg\n  laayers encoder.lstmm[*].** { wieghts '
                    'int8 per_chanel }\n}\n')
    assert fix_file(path) >= 5
    assert nnac.load(path).plan["encoder.lstm[0].input"].weights.bits == 8
    assert path.read_text().startswith('import "targets/edge.nnac"\n')


def test_fix_never_adds_mistakes(tmp_path):
    for pair in PAIRS:
        if pair.stem in ("not-utf8", "circular-import"):
            continue
        path = tmp_path / pair.name
        path.write_bytes(pair.read_bytes())
        space = Workspace()
        before = unmended(check(space, path, space.file(path), None, {}))
        fix_file(path)
        space = Workspace()
        assert unmended(check(space, path, space.file(path), None, {})) <= before, pair.name


def test_edits_that_overlap_are_not_both_applied():
    source = Source("f", "abcdef")
    text, count = applied("abcdef", [Edit(Span(source, 0, 3), "X"), Edit(Span(source, 2, 4), "Y"),
                                     Edit(Span(source, 4, 6), "Z")])
    assert count == 2 and text in ("XdZ", "abYZ")


def test_positions_count_lines_and_characters_from_one():
    source = Source("f", "ab\r\nç\n\nx")
    assert [source.position(i) for i in (0, 2, 4, 6, 7)] == [(1, 1), (1, 3), (2, 1), (3, 1), (4, 1)]
    assert source.line(1) == "ab" and source.line(3) == "" and source.line(4) == "x"
