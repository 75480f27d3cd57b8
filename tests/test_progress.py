"""Progress in a log: one line a stage, said when the stage is over."""

import pytest

from nnac.progress import progress


def test_a_stage_ends_in_one_line(capsys):
    with progress("speaking", 300) as advance:
        for k in range(300):
            advance(1, f"loss {k}")
        advance(0, "dev WER 5.0 %")
    out, err = capsys.readouterr()
    assert out == "" and err == "speaking: 300/300, 0 s  dev WER 5.0 %\n"


def test_a_stage_that_is_stopped_says_where(capsys):
    with pytest.raises(KeyboardInterrupt), progress("training", 10, done=2) as advance:
        advance(3)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "training: 5/10, 0 s, stopped\n"


def test_a_long_stage_says_now_and_then_how_far_it_is(capsys):
    with progress("training", 3, every_s=0.0) as advance:
        advance()
        advance()
        advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("training: 1/3, 0 s, ") and lines[-1] == "training: 3/3, 0 s"


def test_quiet_says_nothing(capsys):
    with progress("speaking", 1, quiet=True) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")
