"""Coverage-guided fuzzing of the language with atheris.  ``make fuzz``; needs `pip install atheris`.

    python -m benchmarks.fuzz_language -max_total_time=180

Every input is parsed, resolved, linted, rendered and formatted; an exception of any kind, or more than 5 seconds, is a
finding. Seeds: the shipped specs and the bad files of the tests.  Ends with one line of JSON: runs, seconds, coverage,
findings.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["nnac"]):
    from nnac import rendering
    from nnac.diagnostics import DiagnosticError
    from nnac.language.check import check_text
    from nnac.language.editor import Session
    from nnac.language.format import format_text

CHILD = "--in-this-process"
SESSION = Session()
BUFFER = ROOT / "specs" / "fuzz.nnac"


def one(data: bytes) -> None:
    """One input: as a file, and as an edit in an editor that remembers the inputs before it."""
    text = data.decode("utf-8", errors="replace")
    t = time.process_time()
    checked = check_text(text, "fuzz.nnac")
    rendering.text(checked.diagnostics, colour=True)
    with contextlib.suppress(DiagnosticError):
        format_text(text)
    shown = SESSION.change(BUFFER, text)
    fresh = {(d.code, d.message) for d in checked.diagnostics}
    assert {(d.code, d.message) for d in shown
            if "in this file" not in d.message} <= fresh, "an edit says something else than a fresh check"
    if text:
        at = len(data) * 7 % (len(text) + 1)
        SESSION.complete(BUFFER, at)
        SESSION.hover(BUFFER, at)
    assert time.process_time() - t < 5, "slow"


def main() -> int:
    """Run the fuzzer in a process of its own (it ends without returning) and sum up what it said."""
    done = subprocess.Popen([sys.executable, "-m", "benchmarks.fuzz_language", CHILD, *sys.argv[1:]], cwd=ROOT,
                            text=True, stderr=subprocess.PIPE)
    assert done.stderr is not None
    runs = seconds = coverage = 0
    for line in done.stderr:
        sys.stderr.write(line)
        if found := re.search(r"cov: (\d+)", line):
            coverage = int(found[1])
        if found := re.match(r"Done (\d+) runs in (\d+) second", line):
            runs, seconds = int(found[1]), int(found[2])
    status = done.wait()
    print(json.dumps({"runs": runs, "seconds": seconds, "coverage": coverage, "findings": int(status != 0)}))
    return status


def fuzz() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for i, path in enumerate([*(ROOT / "specs").rglob("*.nnac"), *(ROOT / "tests" / "diagnostics").glob("*.nnac")]):
            (Path(corpus) / f"seed{i}").write_bytes(path.read_bytes())
        words = Path(corpus).parent / f"{Path(corpus).name}.dict"
        from nnac.compression import keywords
        from nnac.language.settings import SETTINGS
        from nnac.units import UNITS

        every = [*keywords(), *SETTINGS, *UNITS, "policy", "target", "extends", "layers", "let", "sweep", "over",
                 "budget", "training", "import",
                 "**", "encoder", "lstm[0]", "gate", "->", "..", "<="]
        words.write_text("".join(f'"{w}"\n' for w in every))

        atheris.Setup([sys.argv[0], corpus, f"-dict={words}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048",
                       *(["-max_total_time=180"] if not any("-max_total_time" in a for a in sys.argv) else []),
                       *sys.argv[1:]], one)
        atheris.Fuzz()


if __name__ == "__main__":
    if CHILD in sys.argv:
        sys.argv.remove(CHILD)
        fuzz()
    else:
        sys.exit(main())
