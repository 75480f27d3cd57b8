"""No input of any bytes gives a traceback, a hang or exponential time."""

from __future__ import annotations

import contextlib
import io
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnac import rendering
from nnac.diagnostics import DiagnosticError
from nnac.language.check import check_file, check_text
from nnac.language.editor import Session
from nnac.language.format import format_text
from tests.language_policies import policies

WORDS = ["policy", "target", "import", "extends", "let", "sweep", "over", "model", "layers", "budget", "training", "p",
         "edge", "rnnt",
         "size", "weights", "int8", "int(", "gq", "gq(5)", "csp(75%", "per_channel", "encoder", "lstm", "**", "*", ".",
         "..", "[", "]",
         "{", "}", "(", ")", "=", "->", "<=", ",", ";", "\n", " ", "%", "1e300", "9999999999999999999999", "0", "-",
         "+", "/", '"',
         '"small"', "#", "\x00", "\ufeff", "\r", "\xe9", "\U0001f600", "steps", "MiB", "GB/s", "true", "none", "gate",
         "\x1b[0m", "\u202e",
         "\ud7ff", "_", "1.5.2", "@", "$", "\\", "'", 'import "targets/edge.nnac"\n',
         'policy p {\n model rnnt(size="tiny")\n target edge\n']
# seconds of CPU for a few hundred words: a generous sign of something exponential
SLOW = 5.0


def everything(text: str) -> None:
    """Whatever nnac does with a text, short of compiling."""
    t = time.process_time()
    checked = check_text(text, "fuzz.nnac")
    shown = rendering.text(checked.diagnostics, colour=True)
    shown.encode("utf-8", "surrogatepass")
    rendering.sarif(checked.diagnostics, {}, "1")
    with contextlib.suppress(DiagnosticError):
        format_text(text)
    for r in checked.resolutions:
        if r.plan is not None:
            r.plan.to_json()
    assert time.process_time() - t < SLOW


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS), max_size=120).map("".join))
def test_any_words_of_the_language(text):
    everything(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_characters(text):
    everything(text)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("f") / "x.nnac"
    path.write_bytes(raw)
    rendering.text(check_file(path).diagnostics)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies(), st.data())
def test_a_right_policy_with_a_piece_exchanged(text, data):
    i = data.draw(st.integers(0, len(text)))
    j = min(len(text), i + data.draw(st.integers(0, 30)))
    everything(text[:i] + "".join(data.draw(st.lists(st.sampled_from(WORDS), max_size=4))) + text[j:])


@settings(max_examples=40, deadline=None)
@given(policies(), st.data())
def test_an_editor_may_ask_anything_anywhere(tmp_path_factory, text, data):
    session, path = Session(), tmp_path_factory.mktemp("s") / "p.nnac"
    cut = data.draw(st.integers(0, len(text)))
    put = data.draw(st.sampled_from(["", "\n", " ", "(", "{", ".", "encoder.", "weights gq(", '"']))
    text = text[:cut] + put + text[cut + data.draw(st.integers(0, 9)):]
    session.change(path, text)
    for at in data.draw(st.lists(st.integers(0, len(text)), max_size=4)):
        session.complete(path, at)
        session.hover(path, at)
        session.definition(path, at)
        session.rename(path, at, "renamed")
    session.format(path)


@pytest.mark.parametrize("raw", [b"", b"\x00" * 10_000, b"\xff" * 1000, b"\xef\xbb\xbf",
                                 "policy p {\r\n}\r\n".encode("utf-16"), b"\r" * 5000,
                                 b"policy p {\r  let a = 1\r}", b"(" * 200_000, b"{" * 200_000, b"layers " * 50_000,
                                 b'"' * 100_001, b"#" * 300_000,
                                 b"a" * 3_000_000, b"policy p { let a = " + b"9" * 1_000_000 + b" }", b";" * 1_000_000,
                                 b"[" + b"1," * 200_000 + b"]",
                                 b"policy p { layers " + b"{a,b}." * 5000 + b"c { weights int8 } }",
                                 b"policy p { layers " + b"**." * 5000 + b"x { } }"],
                         ids=lambda r: repr(r[:12])[1:])
def test_hostile_files_end_soon(tmp_path, raw):
    path = tmp_path / "x.nnac"
    path.write_bytes(raw)
    t = time.process_time()
    checked = check_file(path)
    rendering.text(checked.diagnostics)
    # a token takes six microseconds where a core is slow and shared, and a million of them six seconds
    assert time.process_time() - t < SLOW * max(1, raw.count(b";") / 500_000)


def test_selectors_never_explode(tmp_path):
    path = tmp_path / "x.nnac"
    many = ".".join(["**"] * 60) + "." + ".".join(["{encoder, prediction, joint, lstm[*], nothing}"] * 40)
    path.write_text(f'import "targets/edge.nnac"\npolicy p '
                    f'{{\n model rnnt(size="saon57m")\n target edge\n layers {many} {{ weights int8 }}\n}}\n')
    t = time.process_time()
    assert check_file(path).errors
    assert time.process_time() - t < SLOW


def test_a_file_that_imports_itself_and_others_that_import_it(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.nnac").write_text("".join(f'import "{j}.nnac"\n' for j in range(30)))
    t = time.process_time()
    checked = check_file(tmp_path / "0.nnac")
    assert {d.code for d in checked.diagnostics} == {"circular-import"} and time.process_time() - t < SLOW


def test_a_chain_of_imports_may_be_long(tmp_path):
    for i in range(200):
        (tmp_path / f"{i}.nnac").write_text(f'import "{i + 1}.nnac"\n' if i < 199 else "")
    assert check_file(tmp_path / "0.nnac").errors == 0


def test_a_sweep_of_sweeps_is_cut_off():
    text = 'import "targets/edge.nnac"\npolicy p {\n model rnnt(size="tiny")\n target edge\n' + "".join(
        f" sweep s{i} over [{', '.join(map(str, range(2, 9)))}]\n"
        for i in range(12)) + " layers ** { weights int(s0) }\n}\n"
    t = time.process_time()
    assert len(check_text(text).resolutions) == 64 and time.process_time() - t < 4 * SLOW


def test_a_file_that_is_missing_keeps_no_mistake_of_the_others_back(tmp_path, capsys):
    from nnac.cli import main

    (tmp_path / "bad.nnac").write_text("policy p { wieghts }\n")
    names = [str(tmp_path / n) for n in ("nothing.nnac", "bad.nnac", "neither.nnac")]
    assert main(["lint", *names]) == 1
    out, err = capsys.readouterr()
    assert "bad.nnac:1" in out and "1 file" in out
    assert err.splitlines() == [f"nnac: {names[0]}: no such file", f"nnac: {names[2]}: no such file"]


def test_missing_files_and_folders_are_said_in_one_line(tmp_path):
    from nnac.cli import main

    for path in (tmp_path / "nothing.nnac",):
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            try:
                status = main(["lint", str(path)])
            except SystemExit as e:
                status = e.code
        assert status == 1 and len(err.getvalue().strip().splitlines()) == 1
