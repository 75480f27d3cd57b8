"""Progress in a log: one line a stage, said when the stage is over."""

import re

import pytest

from nnac.progress import progress


def test_a_stage_ends_in_one_line(capsys):
    with progress("speaking", 300) as advance:
        for k in range(300):
            advance(1, f"loss {k}")
        advance(0, "dev WER 5.0 %")
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"speaking: 300/300, \d+ s  dev WER 5\.0 %\n", err)


def test_a_stage_that_is_stopped_says_where(capsys):
    with pytest.raises(KeyboardInterrupt), progress("training", 10, done=2) as advance:
        advance(3)
        raise KeyboardInterrupt
    assert re.fullmatch(r"training: 5/10, \d+ s, stopped\n", capsys.readouterr().err)


def test_a_stage_that_never_began_leaves_the_word_to_the_error(capsys):
    with pytest.raises(ValueError), progress("training", 10):
        raise ValueError
    assert capsys.readouterr().err == ""


def test_a_long_stage_says_now_and_then_how_far_it_is(capsys):
    with progress("training", 3, every_s=0.0) as advance:
        advance()
        advance()
        advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and re.match(r"training: 1/3, \d+ s, \d+ s left",
                                        lines[0]) and re.fullmatch(r"training: 3/3, \d+ s", lines[-1])


def test_quiet_says_nothing(capsys):
    with progress("speaking", 1, quiet=True) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")
