"""The manual suffices: what it names it defines, what it says is what runs."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from attrs import evolve, fields

from nnac import arith, codec
from nnac.isa import UNITS, MachineConfig, registry
from nnac.isa import rules as tables
from nnac.isa.manual import CODECS, CONSTANTS, FUNCTIONS, arithmetic, manual, page, records
from tests.schedules import EDGE, LARGE, TINY
from tests.test_isa import random_instruction

MACHINES = [MachineConfig.of(t) for t in (EDGE, LARGE, TINY)]
TEXT = manual()
SECTION = {m[1]: m[2] for m in re.finditer(r"^\d+  (.+)\n-+\n((?:.*\n)*?)(?=^\d+  .+\n-+\n|\Z)", TEXT, re.M)}


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w+", text))


def test_no_quoted_name_is_left_undefined():
    """Whatever stands in back-quotes is made of operands, parameters, functions, memories and numbers that the manual
    explains."""
    everywhere = {f.name for f in fields(MachineConfig)} | set(FUNCTIONS) | set(registry) | set(UNITS)
    everywhere |= {"A", "W", "ACC", "LUT", "TABLE", "DRAM", "edge"}
    everywhere |= {"index", "activation"}                                      # said beside MVM's formula
    for name, cls in registry.items():
        defined = everywhere | {f.name for f in cls.fields} | {f.name for r in records(cls).values() for f in r.fields}
        for quoted in re.findall(r"`+([^`]+)`+", page(cls)):
            assert words(quoted) <= defined, (name, quoted, words(quoted) - defined)
    outside = TEXT.replace(SECTION["Instructions"], "")
    for quoted in re.findall(r"`+([^`]+)`+", outside):
        assert words(quoted) <= everywhere | {"id", "time"}, quoted


def test_nothing_must_be_looked_up_in_python():
    assert not re.findall(r"nnac\.\w+|arith\.|np\.|numpy|torch|self\.|isinstance|hasattr", TEXT)
    # where the rules of time stand as a program
    assert TEXT.count(".py") == 1


@pytest.mark.parametrize("config", MACHINES, ids=lambda c: c.name)
def test_every_number_of_a_machine_is_printed(config):
    text = manual(config)
    for a in fields(MachineConfig):
        value = getattr(config, a.name)
        if a.name == "rates":
            assert f"int8 {value[0]}, int16 {value[1]}, int4 {value[2]}, int2 {value[3]}, int1 {value[4]}" in text
        elif a.name != "name":
            assert re.search(rf"^{a.name} +{re.escape(str(value))}  \S", text, re.M), a.name


@pytest.mark.parametrize("kind", [k for k in registry.values() if k.unit in ("MV", "VX", "CT")],
                         ids=lambda k: k.__name__)
def test_the_formula_of_cycles_is_what_is_counted(kind):
    (formula,) = re.findall(r"Cycles: (.+?)(?:\.(?: |\n|$)|, (?:for|in) |\n|$)", page(kind))
    rng = np.random.default_rng(0)
    for config in [*MACHINES, evolve(MACHINES[0], vector=5, lanes=12, rates=(Fraction(3, 2),) * 5, act16_factor=3,
                                     vx_fill=11)]:
        for _ in range(50):
            i = random_instruction(kind, rng)
            if kind.__name__ == "MVM" and i.weights > 4:
                continue
            names = {a.name: getattr(config, a.name) for a in fields(MachineConfig)} | {f.name: getattr(i, f.name)
                for f in kind.fields}
            names |= dict(ceil=math.ceil, L=config.lanes, V=config.vector, max=max)
            if kind.__name__ == "MVM":
                names["rate"] = config.rates[i.weights]
            assert eval(formula, {}, names) == i.cycles(config)[0], (formula, str(i))


def test_the_arithmetic_runs_from_the_page():
    """The printed functions, run as they stand, with nothing but each other: equal to the machine's on random numbers
    of every size."""
    text = arithmetic()
    source = re.sub(r" = ", "=", re.search(r"^PRE_FRACTION.*$", text, re.M)[0]).replace("  ", "\n")
    for m in re.finditer(r"^(\w+\([\w, ]+\))\n(?:    .*\n|\n)*?    exactly:\n((?:        .*\n)+)", text, re.M):
        source += f"\ndef {m[1]}:\n{m[2]}"
    printed: dict = {}
    exec(source, printed)
    assert set(FUNCTIONS) <= set(printed) and all(name.strip("_") in printed for name in CONSTANTS)
    rng = np.random.default_rng(0)

    def numbers(bits, *shape):
        return rng.integers(-1 << bits - 1, 1 << bits - 1, shape) >> rng.integers(0, bits, shape)

    m, s = rng.integers(0, 1 << 31, 64), rng.integers(0, 63, 64)
    sigmoid, tanh, exp = (t.entries.astype(np.int64) for t in (arith.sigmoid_table(), arith.tanh_table(),
                                                               arith.exp_table()))
    root = arith.rsqrt_table()
    cases = dict(
        saturate=(numbers(40, 64), 8), round_shift=(numbers(60, 64), s), requantise=(numbers(31, 64), m, s, 3, 8),
        requantise_double=(numbers(31, 64), rng.integers(1 << 30, 1 << 31, 64), rng.integers(0, 32, 64), 3, 8),
        add=(numbers(16, 64), numbers(16, 64), (m[0], m[1]), (s[0] % 40, s[1] % 40), 8), max_of=(numbers(16, 7, 9),),
        bit_length=(abs(numbers(62, 64)),),
        lstm_cell=(numbers(16, 64), numbers(16, 16), sigmoid, tanh, tanh, 11, 1 << 15, 38, 8),
        gru_cell=(numbers(16, 48), numbers(16, 48), numbers(16, 16), sigmoid, tanh),
        rsqrt=(1 + abs(numbers(61, 64)), root),
        layer_norm=(numbers(16, 5, 64), numbers(16, 64), numbers(31, 64), 100, 2048, root, 1 << 20, 40, 1, 16, 0),
        log_softmax=(numbers(16, 5, 64), exp, arith.log_table(), 30000, 15),
        softmax=(numbers(16, 5, 64), exp, root, 30000, 15, 255, 15, -128, 8),
        gate=(numbers(16, 64), numbers(16, 64), sigmoid, "complement", 1 << 20, 40, 0, 8),
        inner=(numbers(8, 3, 5, 8), numbers(8, 3, 7, 8)),
        attention_scores=(numbers(8, 3, 5, 8), numbers(8, 3, 7, 8), numbers(20, 5, 7), rng.integers(0, 2, (5, 7)),
                          1 << 23, 26),
        weighted_sum=(numbers(8, 3, 5, 7), numbers(8, 3, 7, 8), 1 << 23, 30, 8),
        depthwise=(numbers(8, 3, 7, 9), numbers(8, 7, 9), numbers(16, 9), 1 << 23, 30, 1, 8),
        ring_order=(np.arange(20), np.arange(10)[:, None], 5, 4), ring_counted=(np.arange(10), 7, 5))
    for _ in range(20):
        for name, arguments in (*cases.items(), ("layer_norm", (*cases["layer_norm"][:-1], 1))):
            got, want = printed[name](*arguments), getattr(arith, name)(*arguments)
            assert all((a == b).all() for a, b in zip(np.atleast_1d(got), np.atleast_1d(want), strict=True)), name
    every = np.arange(-32768, 32768)
    for symmetry in ("odd", "complement"):
        assert (printed["lookup"](sigmoid, symmetry, every) == arith.lookup(sigmoid, symmetry, every)).all()
    assert printed["limits"](8) == (-128, 127)


def test_every_codec_and_every_rule_is_printed():
    for name in CODECS[1:]:
        assert f"\n{name}: " in SECTION["Weight streams"] and name in codec.PAYLOADS
    assert list(CODECS[1:]) == list(codec.PAYLOADS)
    rules = SECTION["What a program must not do"]
    for rule in (*tables.CODE, *tables.ADDRESSES, *(r for k in registry.values() for r in k.rules)):
        assert rule.text in rules
    for cls in registry.values():
        for record in records(cls).values():
            assert str(record) in page(cls)
            assert all(str(f) in rules for f in record.fields if (f.least, f.greatest) != f.whole and f.name != "0")
