"""The plan as JSON: published schema, round trip, digest."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings

import nnac
import nnac.ops
from nnac.diagnostics import DiagnosticError
from nnac.plan import Plan, PlanError, load_plan, schema_text
from tests.language_policies import policies

SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text()))
RICH = '''import "targets/edge.nnac"
policy rich {
  model rnnt(size="small")
  target edge
  let bits = 3
  training { epochs 4 epochs; steps_per_epoch 1k steps; batch 8; learning_rate 3e-4; warmup 100 steps; seed 7 }
  layers ** { weights int8; activations int8 mse }
  layers encoder.lstm[0].** {
    weights     gq(bits, space=flat, anneal=linear(1 -> 9, over=25%, from=10 steps))
    sparsity    csp(75%, block=16, from=1 epochs, to=50%)
    codec       codebook
  }
  layers encoder.lstm[1].** { weights lloyd_max(4, refresh=500 steps)
                              regularise mracos(strength=1e-4, ramp=0..2k steps); harden every(10%) }
  layers encoder.lstm[2].** { weights int4 per_group(16) lsq; pin never }
  layers joint.encoder.** { weights codebook([-1, 0, 0.5, 1]) }
  layers joint.output.** { weights ternary }
  layers **.lstm[*] { hidden int8 fixed(1); cell int16 fraction(10); accumulate sum16; bias int32 }
  layers prediction.lstm[*] { cell int16 auto }
  budget { weights <= 8 MiB; bits_per_weight <= 9 }
}
'''


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_round_trip_through_json_is_the_same_plan():
    plan = nnac.loads(RICH).plan
    text = json.dumps(plan.to_json())
    SCHEMA.validate(json.loads(text))
    again = load_plan(text)
    assert again == plan and again.to_json() == plan.to_json() and hash(again) == hash(plan)
    for site in plan:
        for name in site.settings:
            assert again.origin(site.path, name) == plan.origin(site.path, name)


def test_an_operator_that_nnac_learns_later_makes_no_other_plan(monkeypatch):
    """Results of trainings are told apart by digests: a sweep would have done all of them again."""
    plan = nnac.loads(RICH).plan
    today, more = plan.digest, (*nnac.ops.shipped(), "convolution")
    fewer = evolve(plan, target=evolve(plan.target, operators=plan.target.operators[1:]))
    assert fewer.digest != today
    monkeypatch.setattr(nnac.ops, "shipped", lambda: more)
    later = evolve(plan, target=evolve(plan.target, operators=more))
    assert later.digest == today and later.to_json() != plan.to_json()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies())
def test_every_plan_fits_the_schema_and_comes_back(text):
    try:
        plans = nnac.loads(text).plans.values()
    except DiagnosticError as e:
        # what the generator cannot know: methods that contradict each other, schedules, widths of the target
        assert {d.code for d in e.diagnostics if d.severity == "error"} <= {
            "contradictory-methods", "impossible-schedule", "unsupported-by-target", "accumulator-overflow",
                                                                            "pin-overflow", "out-of-range",
            "unsuitable-method"}, e
        return
    for plan in plans:
        data = json.loads(json.dumps(plan.to_json()))
        SCHEMA.validate(data)
        assert Plan.from_json(data) == plan


def test_the_digest_is_the_same_in_every_process():
    code = f"import nnac; print(nnac.loads({RICH!r}).plan.digest)"
    runs = {subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": str(s), "PYTHONPATH": "."},
                           capture_output=True, text=True,
                           check=True).stdout for s in (1, 2)}
    assert len(runs) == 1 and runs.pop().strip() == nnac.loads(RICH).plan.digest


def test_the_digest_is_of_decisions_not_of_their_spelling():
    other = RICH.replace("weights ternary", "weights   ternary(0.7)").replace("25%", "(20% + 5%)")
    assert nnac.loads(other).plan == nnac.loads(RICH).plan
    assert nnac.loads(RICH.replace("ternary", "ternary(0.6)")).plan != nnac.loads(RICH).plan


def _without(data, *path):
    *way, last = path
    for key in way:
        data = data[key]
    del data[last]


@pytest.mark.parametrize("spoil", [
    lambda d: _without(d, "target"), lambda d: _without(d, "sites", 0,
                                                        "path"), lambda d: d.update(nnac_plan=2),
                                   lambda d: d["model"].update(builder=None)
    or d["sites"][0].update(kind="planet", colour=1), lambda d: d["target"]["dram"].update(bandwith=1),
    lambda d: d["sites"][2].update(weights={"width": "int99"}),
    lambda d: d["target"].update(clock=-1),
    lambda d: d.update(sites=None), lambda d: d["training"].update(stepps=3), lambda d: d.update(budgets=[1])])
def test_a_plan_that_is_none_is_refused_with_a_message(spoil):
    data = json.loads(json.dumps(nnac.loads(RICH).plan.to_json()))
    spoil(data)
    with pytest.raises(PlanError):
        load_plan(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe", '{"nnac_plan": 1}'])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(PlanError):
        load_plan(text)


def test_the_plan_prints_for_people():
    text = str(nnac.loads(RICH).plan)
    assert ("encoder.lstm[1].input" in text and "lloyd_max(4, refresh=500 steps)" in text
            and "mracos(strength=0.0001, ramp=0..2k steps)" in text)


def test_printed_settings_are_read_back_as_they_are():
    """What the plan prints is the language again."""
    plan = nnac.loads(RICH).plan
    lines = [f"  layers {s.path} {{ {'; '.join(f'{k} {v}' for k, v in s.settings.items() if k != 'frames')} }}"
             for s in plan]
    head = RICH.partition("  layers")[0]
    assert [s.settings for s in nnac.loads(head + "\n".join(lines) +
                                           "\n  budget { weights <= 8 MiB; bits_per_weight <= 9 }\n}").plan] == [
        s.settings for s in plan]
