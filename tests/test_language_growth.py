"""Lint takes as long as a file is: four times the file, four times the work, however it is made."""

import cProfile
import pstats

import pytest

from nnac import rendering
from nnac.language.check import check_text

HEAD = 'import "targets/edge.nnac"\n'
BODY = 'policy p {\n  model rnnt(size="small")\n  target edge\n'


def chain(count):
    """Policies that extend each other, one after the other."""
    first = HEAD + BODY.replace("policy p ", "policy p0 ") + "  layers ** { weights int8 }\n}\n"
    return first + "".join(f"policy p{i} extends p{i - 1} {{\n  layers encoder.lstm[{i % 3}] {{ cell int16 "
                           f"fraction({i % 10 + 3}) }}\n}}\n" for i in range(1, count))


def fan(count):
    """Policies that extend one."""
    return chain(1) + "".join(f"policy p{i} extends p0 {{\n  layers encoder.lstm[0] {{ cell int16 fraction(9) }}\n}}\n"
                              for i in range(1, count))


def unknown(count):
    """Layers that are not there."""
    return HEAD + BODY + "".join(f"  layers encoder.lsmt{i} {{ weights int8 }}\n" for i in range(count)) + "}\n"


def rules(count):
    """Rules that hide each other."""
    return HEAD + BODY + "".join(f"  layers encoder.lstm[{i % 3}].input {{ weights int{i % 7 + 2} }}\n"
                                 for i in range(count)) + "}\n"


def lets(count):
    """Parameters, each made of the one before."""
    return HEAD + BODY + "  let a0 = 4\n" + "".join(f"  let a{i} = a{i - 1}\n" for i in range(1, count)) + "}\n"


def sweeps(count):
    """Values of a sweep."""
    return HEAD + BODY + f"  sweep bits over [{', '.join(str(i % 7 + 2) for i in range(count))}]\n" \
        "  layers encoder.lstm[*].input { weights int(bits) }\n}\n"


def strangers(count):
    """Policies on policies that nobody has written."""
    return chain(1) + "".join(f"policy q{i} extends r{i} {{}}\n" for i in range(count))


def nameless(count):
    """Parameters made of names that are none, which are nearly theirs."""
    return HEAD + BODY + "".join(f"  let a{i} = b{i}\n" for i in range(count)) + "}\n"


def work(text):
    """Function calls of checking a text and of printing what is wrong with it: the same on every machine."""
    profile = cProfile.Profile()
    profile.enable()
    rendering.text(check_text(text).diagnostics)
    profile.disable()
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize(("make", "count"), [(chain, 150), (fan, 40), (unknown, 150), (rules, 400), (lets, 100),
                                             (sweeps, 20), (strangers, 40), (nameless, 40)],
                         ids=lambda v: getattr(v, "__name__", str(v)))
def test_four_times_the_file_is_four_times_the_work(make, count, monkeypatch):
    monkeypatch.setattr("nnac.diagnostics.MANY", 8)
    check_text(make(2))                                      # imports and tables, once
    few, many = work(make(count)), work(make(4 * count))
    assert many < 4.6 * few, f"{many / few:.1f} times the work"


def test_a_policy_on_too_many_others_is_refused_once_and_those_below_it_are_left():
    checked = check_text(chain(180))
    (found,) = checked.diagnostics
    assert found.code == "out-of-range" and "`p101` stands on more than 100 other policies" in found.message
    assert "p100" in checked.variants and "p101" not in checked.variants
    (asked,) = check_text(chain(180), policy="p150").diagnostics
    assert "`p150` stands on more than 100" in asked.message
    assert not check_text(chain(101)).diagnostics
