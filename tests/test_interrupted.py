"""Ctrl-C while nnac starts ends it in a word or none, never in a traceback of nnac's."""

import random
import signal
import subprocess
import sys
import time

import pytest

STATUS = (-signal.SIGINT, 130, 0)


def start(*command):
    """A process in which SIGINT is not ignored, as in a terminal."""
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


@pytest.mark.parametrize(("program", "expected"), [
    ("import sys; sys.argv, sys.orig_argv = ['-m'], ['python', '-m', 'nnac', 'lint']", "SIG_DFL"),
    ("import sys; sys.argv, sys.orig_argv = ['-m'], ['python', '-m', 'pytest']", "default_int_handler"),
    ("", "default_int_handler")])
def test_nnac_takes_the_interrupt_only_where_it_is_the_program(program, expected):
    code = f"{program}\nimport nnac, signal\nassert signal.getsignal(signal.SIGINT) is signal.{expected}"
    done = start("-c", code)
    assert done.wait() == 0, done.stderr.read()


SCRIPT = "import sys; from nnac.__main__ import main; sys.exit(main())"


@pytest.mark.parametrize("launch", [("-m", "nnac"), ("-c", SCRIPT)],
                         ids=["module", "script"])
def test_an_interrupt_at_any_time_of_the_start_is_no_traceback(launch):
    begun = time.monotonic()
    assert start(*launch, "lint", "specs/rnnt_int8.nnac").wait() == 0
    whole, r = time.monotonic() - begun, random.Random(3)
    for _ in range(10):
        process = start(*launch, "lint", "specs/rnnt_int8.nnac")
        time.sleep(r.uniform(0.0, whole))
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        # what Python does before it has found nnac (its own `site`, `runpy`) is not nnac's to mend
        lines = [line for line in said.splitlines() if "/nnac/" in line]
        assert not lines, said
        assert process.returncode in STATUS or "Traceback" in said, (process.returncode, said)


def test_an_interrupt_within_a_callback_that_nothing_leaves_ends_the_work_as_well():
    """Python prints `Exception ignored` and goes on: the work went on as if nobody had asked."""
    code = """if True:
        import os, signal, sys, time, weakref
        import nnac.cli
        from nnac.__main__ import main

        class Thing:
            pass

        def work():
            thing = Thing()
            held = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del thing
            time.sleep(60)
            return 0

        nnac.cli.main = work
        sys.exit(main())"""
    process = start("-c", code)
    said = process.communicate(timeout=50)[1]
    assert (process.returncode, said.split()) == (130, ["interrupted"])
