"""Values with units, and how methods declare their arguments."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnac.compression import find, forms, from_dict, keywords, methods
from nnac.compression.base import KINDS
from nnac.units import (
    BANDWIDTH,
    BYTES,
    CYCLES,
    EPOCHS,
    FREQUENCY,
    NUMBER,
    PERCENT,
    STEPS,
    TIME,
    UNITS,
    Moment,
    Quantity,
    Span,
    UnitError,
    number,
    show,
)


def q(value, unit=None) -> Quantity:
    scale, dimension = UNITS[unit] if unit else (Fraction(1), NUMBER)
    return Quantity(Fraction(value) * scale, dimension)


def test_units_that_differ_are_not_added():
    for a, b in ((q(1, "steps"), q(1, "epochs")), (q(1, "MiB"), q(1, "ms")), (q(1), q(1, "%")),
                 (q(1, "cycles"), q(1, "us"))):
        with pytest.raises(UnitError, match="cannot be"):
            a + b


def test_products_and_quotients_have_the_units_they_should():
    assert (q(250, "cycles") / q(500, "MHz")).dimension == TIME and (q(250, "cycles") / q(500,
        "MHz")).value == Fraction(1, 2 * 10**6)
    assert (q(2, "ms") * q("3.75", "GB/s")) == Quantity(Fraction(7_500_000), BYTES)
    assert (q(1, "GB") / q(1, "s")).dimension == BANDWIDTH and (q(10, "cycles") / q(1, "s")).dimension == FREQUENCY


def test_a_share_of_something_is_that_something():
    assert q(25, "%") * q(6000, "steps") == q(1500, "steps")
    assert (q(50, "%") * q(50, "%")) == Quantity(Fraction(1, 4)) and (q(10, "%") + q(5, "%")).dimension == PERCENT


@pytest.mark.parametrize("text,value", [("4k", 4000), ("1.5M", 1_500_000), ("1_000", 1000),
                                        ("1e-4", Fraction(1, 10000)),
                                        ("0.1", Fraction(1, 10)), ("2E3", 2000)])
def test_numbers_are_exact(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["1e301", "1e-301", "9" * 500, "1e99999999999"])
def test_numbers_out_of_all_bounds_are_refused(text):
    with pytest.raises(UnitError):
        number(text)


def test_numbers_cannot_grow_without_bound():
    x = q(10**300)
    with pytest.raises(UnitError):
        for _ in range(20):
            x = x * x
    with pytest.raises(UnitError, match="zero"):
        q(1) / q(0)


@pytest.mark.parametrize("quantity,text", [
    (q(4000, "steps"), "4k steps"), (q("1.25", "MiB"), "1.25 MiB"), (q(75, "%"), "75%"), (q(2, "ms"), "2 ms"),
                                           (q(500, "MHz"), "500 MHz"),
    (q("3.75", "GB/s"), "3.75 GB/s"), (q(128, "bytes"), "128 bytes"), (q(Fraction(1, 3)), "0.333333"),
                                           (q(0, "steps"), "0 steps"), (q(1500), "1500")])
def test_quantities_print_as_people_write_them(quantity, text):
    assert show(quantity) == text


@given(st.sampled_from(sorted(UNITS)), st.fractions(Fraction(-10**6), Fraction(10**6)))
def test_every_quantity_prints(unit, value):
    assert show(q(value, unit))


def test_moments_become_steps():
    assert Moment(0.25, "training").steps(6000) == 1500 and Moment(2, "epochs").steps(9,
        300) == 600 and Moment(7).steps(1) == 7
    with pytest.raises(UnitError, match="steps_per_epoch"):
        Moment(1, "epochs").steps(100)
    assert str(Span(Moment(0), Moment(2000))) == "0..2k steps" and str(Moment(0.6, "training")) == "60%"


def test_dimensions_have_names_in_messages():
    with pytest.raises(UnitError, match="steps and epochs"):
        Quantity(Fraction(1), STEPS) + Quantity(Fraction(1), EPOCHS)
    assert "cycle" in show(Quantity(Fraction(1), CYCLES)) + "s"


# -- declarations of methods

@pytest.mark.parametrize("keyword", keywords())
def test_a_method_is_declared_completely(keyword):
    cls = find(keyword)
    assert cls is not None and cls.keyword == keyword, "one file, one method, the file's name is its keyword"
    assert "Source" in (cls.__doc__ or ""), "says paper, reconstruction or our choice"
    for name, (spec, default) in cls.arguments().items():
        assert spec.kind in KINDS and spec.doc and name.isidentifier() and name == name.lower()
        if default is not attrs.NOTHING:
            assert spec.problem(default) is None, f"the default of {name} is within its own bounds"
    assert attrs.has(cls) and all("argument" in a.metadata for a in attrs.fields(cls) if a.init)


@pytest.mark.parametrize("cls", [*methods().values(), *forms().values()], ids=lambda c: c.keyword)
def test_methods_survive_json_and_print_as_the_language(cls):
    required = {n: {"integer": 2, "number": 0.5, "fraction": 0.5, "moment": Moment(100),
                    "numbers": (-1.0, 0.0, 0.5)}[a.kind]
                for n, (a, d) in cls.arguments().items() if d is attrs.NOTHING}
    # one of two is needed: neither is by itself
    required |= {n: v for n, v in (("pull", 0.3), ("spacings", 1.0)) if n in cls.arguments()}
    one = cls.make(**required)
    assert from_dict(one.as_dict()) == one and hash(one) == hash(from_dict(one.as_dict()))
    assert str(one).startswith(cls.keyword)


def test_bounds_hold_however_an_instance_is_made():
    gq = find("gq")
    for bits in (0, 9):
        with pytest.raises(ValueError, match="`bits` of `gq`"):
            gq(bits=bits)
        with pytest.raises(ValueError):
            from_dict({"method": "gq", "arguments": {"bits": bits}})
    with pytest.raises(ValueError, match="smaller than `m`"):
        find("n_m")(n=4, m=4)
    with pytest.raises(ValueError, match="no argument"):
        from_dict({"method": "gq", "arguments": {"bitz": 4}})


def test_listing_methods_imports_none_of_them_and_nothing_heavy():
    code = ("import sys, nnac.compression as c; c.keywords(); print('nnac.compression.gq' in sys.modules); "
            "c.find('gq'); "
            "print([m for m in ('torch', 'numpy', 'networkx', 'nnac.compression.csp') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[:2] == ["False", "[]"]
