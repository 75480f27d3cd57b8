"""`decode { … }`: what a policy says of search travels in its plan, and changes nothing of the model."""

import inspect

import pytest
from attrs import fields_dict

import nnac
from nnac.decode.fusion import MOST_BONUS, MOST_WEIGHT, Fusion
from nnac.decode.search import MAX_SYMBOLS, names
from nnac.decode.search.beam import Beam
from nnac.language.decoding import ARGUMENT_DOCS, ARGUMENTS, DECODE_DOCS, FILES, FUSIONS, LIMITS, SEARCHES
from nnac.plan import Decode, Plan
from nnac.policy import loads

HEAD = ('import "targets/edge.nnac"\npolicy p {\n  model rnnt(size="tiny")\n  target edge\n  let w = 0.3\n'
        '  let b = -0.1\n')


def plan(decode: str, more: str = "") -> Plan:
    return loads(f"{HEAD}  layers ** {{ weights int8 }}\n  {decode}\n}}\n{more}").plan


def test_a_policy_says_how_its_program_searches():
    said = plan("decode { search beam(12); fusion density_ratio(w, less=0.2); length_bonus b; delta 3.5; max_symbols 4 "
                "}").decode
    assert said == Decode("beam", 12, 4, 3.5, 0.0, -0.1, "density_ratio", 0.3, 0.2)
    assert plan("decode { search beam }").decode == Decode("beam")
    assert plan("decode { search greedy; max_symbols 3 }").decode == Decode(max_symbols=3)
    assert plan("").decode is None


def test_a_policy_that_extends_replaces_setting_by_setting():
    both = plan("decode { search beam(8); delta 4; fusion shallow(0.2) }",
                "policy q extends p { decode { delta 6; fusion none } }")
    assert both.name == "q" and both.decode == Decode("beam", 8, delta=6.0, weight=0.2)


def test_a_fusion_may_name_the_files_of_its_language_models(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "p.nnac"
    path.write_text(f"""{HEAD}  layers ** {{ weights int8 }}
  decode {{ search beam(8); fusion density_ratio(target="../home-lm.nnc", source="train-lm.nnc", 0.3, -0.2) }}
}}
policy q extends p {{ decode {{ fusion internal(0.2, 0.1) }} }}
""")
    said = nnac.load(path, "p")
    assert [d.severity for d in said.diagnostics if d.code == "language-model"] == ["warning"] * 2, "not there yet"
    decode = said.plan.decode
    folder = path.parent.resolve()
    assert decode.files == {"lm": f"{folder}/../home-lm.nnc", "source_lm": f"{folder}/train-lm.nnc"}
    assert (decode.weight, decode.less) == (0.3, 0.2), "what is taken off, with its sign or without"
    assert str(decode.named) == str(decode) and decode.named.files == {"lm": "home-lm.nnc", "source_lm": "train-lm.nnc"}
    assert Plan.from_json(said.plan.to_json()).decode == decode
    assert nnac.load(path, "q").plan.decode.files == {}, "another fusion has its own"
    assert plan('decode { search beam; fusion shallow(0.3, target="x.nnc") }').digest == plan("").digest


def test_search_is_not_part_of_what_a_plan_decides():
    with_it, without = plan("decode { search beam(8) }"), plan("")
    assert with_it.digest == without.digest and with_it == without, "training and program stay what they are"
    assert Plan.from_json(with_it.to_json()).decode == with_it.decode and "decode" not in without.to_json()


def test_the_language_knows_what_search_and_fusion_know():
    assert set(SEARCHES) <= set(names()) and set(ARGUMENTS) == set(SEARCHES) | set(FUSIONS)
    assert set(DECODE_DOCS) | set(ARGUMENT_DOCS) == set(fields_dict(Decode)) and set(LIMITS) <= set(fields_dict(Decode))
    assert {n for names in (*ARGUMENTS.values(), *FILES.values()) for n in names} == set(ARGUMENT_DOCS)
    assert {f: len(names) for f, names in FILES.items()} == {f: len(Decode(fusion=f).languages) for f in FUSIONS
                                                             if f != "none"}
    default = Beam()
    for name in ("beam", "max_symbols", "delta", "blank_penalty"):
        assert getattr(Decode(), name) == getattr(default, name)
        low, high, _ = LIMITS[name]
        for value in (low, high):
            Beam(**{name: value})
        for value in (low - 1, high + 1):
            with pytest.raises(ValueError, match=name):
                Beam(**{name: value})
    assert Decode().max_symbols == MAX_SYMBOLS and LIMITS["weight"][1] == LIMITS["less"][1] == MOST_WEIGHT
    assert LIMITS["length_bonus"][1] == MOST_BONUS and "internal" in inspect.signature(Fusion).parameters


def test_a_policy_with_fusion_is_noted_by_lint_and_loads(tmp_path):
    path = tmp_path / "p.nnac"
    path.write_text(f"{HEAD}  layers ** {{ weights int8 }}\n  decode "
                    f"{{ search beam(8); fusion internal(w, 0.2) }}\n}}\n")
    assert [d.code for d in nnac.load(path).diagnostics if d.severity == "note"] == ["fusion-domain"]
