"""The commands of the language, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from nnac.cli import commands, main
from nnac.language.tables import data_file

SPEC = str(data_file("specs", "rnnt_int8.nnac"))
GQ = str(data_file("specs", "papers", "gq5.nnac"))
BAD = 'policy bad {\n  model rnnt(size="small")\n  target edge\n  layers encoder.lstmm[*] { weights int8 }\n}\n'


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.nnac"
    path.write_text(BAD)
    return path


def call(capsys, *args) -> tuple[int, str, str]:
    try:
        status = main([str(a) for a in args])
    except SystemExit as e:
        status = e.code
    out = capsys.readouterr()
    return status, out.out, out.err


def test_lint_of_good_files_is_quiet_and_succeeds(capsys):
    assert call(capsys, "lint", *sorted(data_file("specs", "targets").glob("*.nnac")), SPEC)[:2] == (0,
        "no problems in 6 files\n")


def test_lint_of_bad_files_shows_all_and_fails(capsys, bad):
    status, out, _ = call(capsys, "lint", bad)
    assert (status == 1 and "error[unknown-target]" in out and "error[unknown-layer]" in out
            and "did you mean `encoder.lstm`?" in out)
    assert out.endswith("2 errors in 1 file\n") and "\x1b" not in out


def test_lint_as_json_and_sarif(capsys, bad):
    status, out, _ = call(capsys, "lint", bad, "--json")
    data = json.loads(out)
    assert status == 1 and data["errors"] == 2 and {d["code"] for d in data["diagnostics"]} == {"unknown-target",
        "unknown-layer"}
    place = next(d for d in data["diagnostics"] if d["code"] == "unknown-layer")["labels"][0]
    assert BAD[place["start"]:place["end"]] == "lstmm" and (place["line"], place["column"]) == (4, 18)
    sarif = json.loads(call(capsys, "lint", bad, "--format", "sarif")[1])
    assert sarif["runs"][0]["tool"]["driver"]["name"] == "nnac" and len(sarif["runs"][0]["results"]) == 2


def test_lint_fix(capsys, bad):
    status, out, _ = call(capsys, "lint", "--fix", bad)
    assert (status == 0 and out.endswith("2 mended\n") and bad.read_text() == 'import "targets/edge.nnac"\n'
                                                                              '' + BAD.replace("lstmm", "lstm"))


def test_warnings_fail_only_when_strict(capsys, tmp_path):
    path = tmp_path / "w.nnac"
    path.write_text('import "targets/edge.nnac"\npolicy w {\n  model rnnt(size="small")\n  target edge\n  let a = '
                    '1\n}\n')
    assert call(capsys, "lint", path)[0] == 0 and call(capsys, "lint", "--strict", path)[0] == 1


def test_lint_explains_codes(capsys):
    status, out, _ = call(capsys, "lint", "--explain", "accumulator-overflow")
    assert status == 0 and "For example:" in out
    assert call(capsys, "lint", "--explain", "acumulator-overflow")[0] == 2
    assert len(call(capsys, "lint", "--explain", "all")[1].splitlines()) > 40


@pytest.mark.parametrize("args", [["lint"], ["lintt", "x"], ["explain"],
                                  ["lint", SPEC, "-D", "bits"], [], ["fmt"]])
def test_misuse_is_status_two_with_one_clear_line(capsys, args):
    status, out, err = call(capsys, *args)
    assert status == 2 and (err or out) and "Traceback" not in err


def test_a_mistyped_command_is_suggested(capsys):
    assert "did you mean `lint`?" in call(capsys, "lintt")[2]


def test_explain_shows_every_layer_and_its_line(capsys):
    status, out, _ = call(capsys, "explain", SPEC)
    assert status == 0 and "encoder.lstm[2].recurrent  1024 x 256" in out
    line = next(x for x in out.splitlines() if "percentile(99.99)" in x)
    number = int(line.rsplit(":", 1)[1])
    assert "percentile(99.99)" in Path(SPEC).read_text().splitlines()[number - 1]


def test_explain_of_a_layer_shows_the_chain(capsys):
    status, out, _ = call(capsys, "explain", SPEC, "encoder.lstm[0].input")
    assert status == 0 and "was    default" in out and "wins   " in out and "layers ** {" in out
    status, _, err = call(capsys, "explain", SPEC, "encoder.lstmm")
    assert status == 1 and "did you mean" in err
    assert call(capsys, "explain", SPEC, "}{")[0] == 2


def test_explain_json_fits_the_published_schema(capsys):
    schema = json.loads(call(capsys, "explain", "--schema")[1])
    jsonschema.validate(json.loads(call(capsys, "explain", SPEC, "--json")[1]), schema)
    variants = json.loads(call(capsys, "explain", GQ, "--json")[1])
    assert [p["parameters"]["bits"] for p in variants] == [5, 8, 4, 3, 2, 1]
    jsonschema.validate(json.loads(call(capsys, "explain", GQ, "--json", "-D", "bits=3")[1]), schema)


def test_explain_prints_the_vocabulary(capsys):
    assert "mu_law" in call(capsys, "explain", "--methods")[1] and "per_channel" in call(capsys, "explain",
        "--settings")[1]


def test_explain_of_a_bad_file_shows_its_mistakes(capsys, bad):
    status, _, err = call(capsys, "explain", bad)
    assert status == 1 and "error[unknown-layer]" in err


def test_diff_names_layers_and_bytes(capsys):
    status, out, _ = call(capsys, "diff", SPEC, GQ)
    assert status == 1 and "encoder.lstm[0].input" in out and "→ per_tensor gq(5" in out and "weight bytes" in out
    data = json.loads(call(capsys, "diff", SPEC, GQ, "--json")[1])
    row = next(r for r in data["changes"] if r["site"] == "encoder.lstm[1].input" and r["setting"] == "weights")
    # as one expects them after the entropy codec: below 8 and 5 bits, not far below
    weights = 1024 * 512
    assert 7 * weights / 8 < row["bytes_a"] < weights and 4.5 * weights / 8 < row["bytes_b"] < 5 * weights / 8
    assert call(capsys, "diff", SPEC, SPEC)[0] == 0


def test_diff_chooses_among_policies_of_a_file(capsys):
    papers = data_file("specs", "papers", "s8bqat.nnac")
    status, out, _ = call(capsys, "diff", f"{papers}:s8bqat_same_size", f"{papers}:s8bqat_no_hardening")
    assert status == 1 and "harden" in out and "→ —" in out


def test_fmt_in_place_and_check(capsys, bad):
    bad.write_text(BAD.replace("  target", "target"))
    assert call(capsys, "fmt", "--check", bad)[0] == 1 and call(capsys, "fmt", bad)[0] == 0 and call(capsys, "fmt",
        "--check", bad)[0] == 0
    assert "  target  edge\n" in bad.read_text()


def test_folders_mean_the_files_in_them(capsys, tmp_path, bad):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "good.nnac").write_text("policy good {\n}\n")
    (tmp_path / "other.txt").write_text("{{{")
    assert call(capsys, "lint", tmp_path)[1].endswith("1 note in 2 files\n")
    assert call(capsys, "fmt", "--check", tmp_path / "deep")[0] == 0


def test_fmt_leaves_broken_files_alone(capsys, tmp_path):
    path = tmp_path / "b.nnac"
    path.write_bytes(b"policy {{\xff")
    assert call(capsys, "fmt", path)[0] == 1 and path.read_bytes() == b"policy {{\xff"


def test_every_command_has_help_and_registers_itself(capsys):
    for name in commands():
        status, out, _ = call(capsys, name, "--help")
        assert status == 0 and f"nnac {name}" in out


def run(*args, **kw):
    return subprocess.run([sys.executable, "-m", "nnac", *args], capture_output=True, text=True, env=os.environ |
                          {"PYTHONPATH": "."}, **kw)


def test_lint_and_explain_import_nothing_heavy():
    code = ("import sys; from nnac.cli import main; main(['lint', {0!r}]); main(['explain', {0!r}]); main(['fmt', "
            "'--check', {0!r}]); "
            "main(['diff', {0!r}, {0!r}]); sys.stderr.write(str([m for m in ('torch', 'numpy', 'networkx', 'lark', "
            "'rich') if m in sys.modules]))")
    done = subprocess.run([sys.executable, "-c", code.format(SPEC)], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"


def test_standard_input_is_linted():
    done = run("lint", "-", input=BAD)
    assert done.returncode == 1 and "<stdin>:4:18" in done.stdout


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(f"{sys.executable} -m nnac lint --explain all | head -1", shell=True, capture_output=True,
                          text=True,
                          env=os.environ | {"PYTHONPATH": "."})
    assert "Traceback" not in done.stderr
