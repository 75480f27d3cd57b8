"""Resolving: who wins, where each value came from, parameters, sweeps, inheritance, imports, targets."""

from __future__ import annotations

from fractions import Fraction

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import nnac
from nnac.diagnostics import DiagnosticError, Source
from nnac.energy import Energy, derived
from nnac.isa import LDA, STA, MachineConfig
from nnac.language.parse import parse
from nnac.language.resolve import resolve
from nnac.language.select import Sites, matched
from nnac.language.workspace import Workspace, scope
from nnac.model import build
from nnac.plan import Granularity, Width
from nnac.target import Target, from_values

HEAD = 'import "targets/edge.nnac"\n'


def plan(body: str, model: str = 'rnnt(size="small")', **parameters):
    return nnac.loads(f"{HEAD}policy p {{\n model {model}\n target edge\n{body}\n}}", **parameters).plan


def codes(text: str) -> list[str]:
    with pytest.raises(DiagnosticError) as caught:
        nnac.loads(text)
    return [d.code for d in caught.value.diagnostics if d.severity == "error"]


# -- precedence

def test_later_rules_win_setting_by_setting():
    p = plan("layers ** { weights int8; activations int16 }\nlayers encoder.lstm[0] { activations int8 }\nlayers "
             "**.lstm[*] { weights int4 sawb }")
    assert p["encoder.lstm[0]"].activations.bits == 8 and p["encoder.lstm[1]"].activations.bits == 16
    assert p["encoder.lstm[0].input"].weights.bits == 4 and p["joint.output.weight"].weights.bits == 8


def test_order_decides_not_how_exact_a_path_is():
    p = plan("layers encoder.lstm[0].input.gate.i { weights int4 }\nlayers encoder.** { weights int8 }")
    assert p["encoder.lstm[0].input.gate.i"].weights.bits == 8


def test_a_rule_reaches_everything_below_what_it_selects():
    p = plan("layers encoder.lstm[1] { weights int4 }")
    assert {s.weights.bits for s in p if s.path.startswith("encoder.lstm[1].")} == {4}
    assert p["encoder.lstm[0].input"].weights.bits == 8


def test_one_gate_can_differ():
    p = plan("layers **.recurrent.gate.f { weights int4 per_tensor }\nlayers encoder.lstm[2].recurrent.gate.{i, o} { "
             "weights gq(3) }")
    widths = [g.weights.bits for g in p.gates("encoder.lstm[2].recurrent")]
    assert widths == [3, 4, 8, 3] and not p.uniform("encoder.lstm[2].recurrent") and p.uniform("encoder.lstm[2].input")


def test_the_origin_of_a_value_is_the_line_that_won():
    text = (f"{HEAD}policy p {{\n model rnnt(size=\"small\")\n target edge\n layers ** {{ weights int8 }}\n"
            f" layers joint.** {{ weights   int4 }}\n}}")
    chain = nnac.loads(text, name="f.nnac").plan.origin("joint.output.weight", "weights")
    assert [(o.file, o.line) for o in chain] == [(None, 0), ("f.nnac", 5), ("f.nnac", 6)]
    assert chain[-1].rule == "layers joint.**" and chain[-1].text == "weights int4" and chain[-1].column == 20


def test_what_nobody_says_has_a_stated_default():
    p = plan("")
    site = p["encoder.lstm[0]"]
    assert (str(site.cell) == "int16 fraction(11)" and site.accumulate == "acc32" and str(site.bias) == "int32"
            and site.place == "nna")
    assert str(p["encoder.lstm[0].input"].weights) == "int8 per_channel minmax"
    assert p.origin("encoder.lstm[0]", "cell")[0].rule == "default"


def test_the_hidden_state_follows_the_activations_unless_said():
    p = plan("layers encoder.lstm[*] { activations int16; accumulator int48 }\nlayers encoder.lstm[1] { hidden int8 "
             "fixed(1) }\n"
             "layers encoder.norm[*] { activations int8 }\nlayers encoder.** { accumulator int48 }")
    assert p["encoder.lstm[0]"].hidden.bits == 16 and p["encoder.lstm[1]"].hidden.bits == 8
    assert str(p["encoder.lstm[1]"].hidden.method) == "fixed(1)"


def test_a_recurrent_layer_gives_its_hidden_state():
    p = plan("layers ** { activations int8 mse }\nlayers encoder.lstm[1] { hidden int4 fixed(1) }")
    assert p["encoder.lstm[1]"].activations == p["encoder.lstm[1]"].hidden and p["encoder.lstm[1]"].hidden.bits == 4
    assert p.origin("encoder.lstm[1]", "activations")[-1].text == "hidden int4 fixed(1)"


def test_sums_are_as_wide_as_their_operands_ask():
    p = plan("layers encoder.norm[0], encoder.reduce { activations int16 }\nlayers joint.output.** { weights int16 }")
    assert {s.path: s.accumulator.bits for s in p if s.accumulator} == {
        "encoder.lstm[0]": 32, "encoder.lstm[1]": 48, "encoder.lstm[2]": 32, "joint.encoder": 32,
                                                                        "prediction.lstm[0]": 32,
        "joint.prediction": 32, "joint.output": 48}


@pytest.mark.parametrize("words", ["weights fp16", "activations fp16", "hidden float", "cell int8", "bias int8",
                                   "weights int32"])
def test_what_no_executor_computes_is_refused(words):
    assert codes(f'{HEAD}policy p {{\n model rnnt(size="small")\n target edge\n layers **.lstm[*] {{ {words} }}\n'
                 f'}}') == ["unsupported-width"]


def test_none_takes_back_what_an_earlier_rule_said():
    p = plan("training { steps 9k steps }\nlayers encoder.** { sparsity magnitude(50%) }\nlayers encoder.lstm[0].** { "
             "sparsity none }")
    assert p["encoder.lstm[0].input"].sparsity is None and p["encoder.lstm[1].input"].sparsity.target == 0.5


SETTINGS = ["weights int4", "weights int8", "weights gq(3)", "codec raw", "codec entropy", "pin never"]
PATHS = ["**", "encoder.**", "encoder.lstm[0]", "encoder.lstm[*].input", "**.gate.f",
         "encoder.lstm[1].recurrent.gate.{i, g}", "joint.**",
         "encoder.lstm[0..1].**", "prediction.lstm[0].{input, recurrent}"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.lists(st.sampled_from(SETTINGS), min_size=1, max_size=2,
                                                           unique_by=lambda x: x.split()[0])),
                max_size=8))
def test_the_plan_is_what_reading_the_rules_in_order_gives(rules):
    """Oracle: walk the rules from the first to the last, match each site by a regular expression, overwrite."""
    import re

    def pattern(path):
        parts = []
        for step in path.split("."):
            parts.append("**" if step == "**" else re.escape(step).replace(r"\[\*\]", r"\[\d+\]").replace(r"\[0\.\.1\]",
                r"\[[01]\]")
                         .replace(r"\{", "(?:").replace(r"\}", ")").replace(r",\ ", "|"))
        text = r"\.".join(parts).replace(r"**\.", r"(?:[^.]+\.)*").replace(r"\.**", r"(?:\.[^.]+)*").replace("**",
            r".*")
        return re.compile(rf"{text}(?:\.(?:input|recurrent|weight|gate)(?:\..*)?)?")

    # `[0..1]` holds a dot: written without it for the oracle
    body = "\n".join(f"layers {path} {{ {'; '.join(said)} }}" for path, said in rules)
    p = plan(body)
    for site in p:
        if site.kind == "layer":
            continue
        expected = {"weights": "int8 per_channel minmax", "codec": "auto", "pin": "auto"}
        for path, said in rules:
            if pattern(path.replace("[0..1]", "[01]").replace("[01]",
                "[0-1]")).fullmatch(site.path) if "[0..1]" not in path else re.fullmatch(
                    r"encoder\.lstm\[[01]\](\..*)?", site.path):
                for one in said:
                    name, value = one.split(" ", 1)
                    expected[name] = {"int4": "int4 per_channel minmax", "int8": "int8 per_channel minmax",
                                      "gq(3)": "per_tensor gq(3)"}.get(value, value)
        assert {"weights": str(site.weights), "codec": site.codec, "pin": site.pin} == expected, site.path


# -- selectors

def sites() -> Sites:
    return Sites.of(build("rnnt", size="small"))


def selected(written: str) -> list[str]:
    s = sites()
    selectors = parse(Source("t", f"policy p {{ layers {written} {{ }}\n}}")).policies[0].items[0].node.selectors
    mask = 0
    for one in selectors:
        mask |= matched(s, one)
    return s.named(mask)


def test_double_star_is_any_number_of_steps_none_included():
    assert selected("encoder.lstm[0].**") == selected("encoder.lstm[0]")
    assert len(selected("**")) == len(build("rnnt", size="small").sites)
    assert selected("**.gate.f") == [p for p in selected("**") if p.endswith(".gate.f")]


def test_single_star_is_one_step():
    assert "encoder.lstm[0].input" not in selected("*") and selected("*") == []
    assert set(selected("joint.*")) == {p for p in selected("**") if p.startswith("joint.")}


def test_slices_and_alternatives():
    assert selected("encoder.lstm[1..2]") == [p for p in selected("**")
                                              if p.startswith(("encoder.lstm[1]", "encoder.lstm[2]"))]
    assert selected("encoder.{lstm[0], norm[0]}") == selected("encoder.lstm[0], encoder.norm[0]")


def test_bidirectional_kernels_have_paths_of_their_own():
    p = plan("layers encoder.lstm[*].backward.** { weights int4 }", 'rnnt(size="saon57m")')
    assert (p["encoder.lstm[5].backward.input"].weights.bits == 4
            and p["encoder.lstm[5].forward.input"].weights.bits == 8)


# -- parameters

def test_parameters_are_overridden_and_keep_their_kind():
    text = (f'{HEAD}policy p {{\n model rnnt(size="small")\n target edge\n let bits = 5\n let end = 2 * 3k steps\n'
            f' training {{ steps end }}\n'
            "layers encoder.lstm[*].** { weights gq(bits) }\n}")
    assert nnac.loads(text).plan["encoder.lstm[0].input"].weights.bits == 5
    p = nnac.loads(text, bits=3, end="4k steps").plan
    assert p["encoder.lstm[0].input"].weights.bits == 3 and p.training.steps == 4000 and p.parameters["bits"] == 3
    with pytest.raises(DiagnosticError, match="does not fit"):
        nnac.loads(text, bits="4k steps")
    with pytest.raises(DiagnosticError, match="did you mean `bits`"):
        nnac.loads(text, bitts=3)


def test_parameters_may_be_defined_in_any_order_but_not_in_circles():
    assert plan("let a = b + 1\nlet b = 2\nlayers ** { weights int(a + b) }")["joint.output.weight"].weights.bits == 5
    chain = "\n".join(f"let x{i} = x{i + 1}" for i in range(3000)) + "\nlet x3000 = 4\nlayers ** { weights int(x0) }"
    assert plan(chain)["joint.output.weight"].weights.bits == 4


def test_numbers_cannot_grow_without_bound():
    doubling = "let a0 = 1e300\n" + "\n".join(f"let a{i + 1} = a{i} * a{i}"
                                              for i in range(40)) + "\nbudget { cycles <= a40 * 1 cycles }"
    assert "wrong-unit" in codes(f'{HEAD}policy p {{\n model rnnt(size="small")\n target edge\n{doubling}\n}}')


def test_a_sweep_makes_one_named_plan_for_each_combination():
    body = "sweep bits over [8, 5, 4]\nsweep how over [\"fista\", \"ista\"]\ntraining { steps 9k steps }\n" \
           "layers encoder.lstm[*].** { weights gq(bits); sparsity csp(50%, measurements=random, solver=how) }"
    policy = nnac.loads(f'{HEAD}policy gq {{\n model rnnt(size="small")\n target edge\n{body}\n}}')
    assert list(policy.plans)[:3] == ["gq[bits=8, how=fista]", "gq[bits=8, how=ista]",
                                      "gq[bits=5, how=fista]"] and len(policy.plans) == 6
    assert policy.plans["gq[bits=4, how=ista]"]["encoder.lstm[0].input"].sparsity.solver == "ista"
    one = nnac.loads(f'{HEAD}policy gq {{\n model rnnt(size="small")\n target edge\n{body}\n}}', bits=3, how="ista")
    assert len(one.plans) == 1 and one.plan["encoder.lstm[0].input"].weights.bits == 3


def test_variants_of_a_sweep_are_plans_of_their_own():
    policy = nnac.loads(f'{HEAD}policy g '
                        f'{{\n model rnnt(size="small")\n target edge\n sweep b over [4, 5]\n'
                        f' layers ** {{ weights int(b) }}\n}}')
    a, b = policy.plans.values()
    assert a != b and a.digest != b.digest and len({a, b}) == 2


# -- inheritance and imports

BASE = 'policy base {\n model rnnt(size="small")\n target edge\n let bits = 8\n layers ** { weights int(bits) }\n' \
       ' budget { weights <= 9 MiB; sram <= 1 MiB }\n}\n'


def test_a_policy_refines_the_one_it_extends():
    p = nnac.loads(HEAD + BASE +
        "policy fine extends base {\n let bits = 4\n layers joint.** { weights int8 }\n budget { weights <= 8 MiB "
                   "}\n}\n")
    assert (p.name == "fine" and p.plan["encoder.lstm[0].input"].weights.bits == 4
            and p.plan["joint.output.weight"].weights.bits == 8)
    assert {b.quantity: b.limit for b in p.plan.budgets} == {"weights": 8 << 20, "sram": 1 << 20}
    assert nnac.loads(HEAD + BASE + "policy fine extends base {\n let bits = 4\n}\n",
                      "base").plan["joint.output.weight"].weights.bits == 8


def test_overriding_the_policy_one_extends_is_no_mistake():
    p = nnac.loads(HEAD + BASE + "policy fine extends base {\n layers ** { weights int4 }\n}\n")
    assert not [d for d in p.diagnostics if d.code == "overridden"]


def test_the_model_of_a_base_can_be_exchanged():
    p = nnac.loads(HEAD + BASE + 'policy other extends base {\n model rnnt(size="tiny")\n}\n').plan
    assert p.model.arguments == {"size": "tiny"} and "encoder.lstm[2]" not in p


def test_imports_are_found_beside_the_file_and_among_the_specs(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.nnac").write_text(HEAD + BASE)
    (tmp_path / "top.nnac").write_text('import "sub/base.nnac"\npolicy top extends base {\n layers ** { weights int4 '
                                       '}\n}\n')
    p = nnac.load(tmp_path / "top.nnac")
    assert p.name == "top" and p.plan.origin("joint.output.weight", "weights")[-2].file.endswith("base.nnac")


def test_a_diamond_of_imports_declares_nothing_twice(tmp_path):
    (tmp_path / "a.nnac").write_text(HEAD + BASE)
    (tmp_path / "b.nnac").write_text('import "a.nnac"\npolicy b extends base {\n layers ** { codec raw }\n}\n')
    (tmp_path / "c.nnac").write_text('import "a.nnac"\nimport "b.nnac"\npolicy c extends b {\n layers ** { pin never '
                                     '}\n}\n')
    assert nnac.load(tmp_path / "c.nnac").plan["joint.output.weight"].codec == "raw"


def test_a_mistake_in_an_imported_file_is_shown_there(tmp_path):
    (tmp_path / "a.nnac").write_text("target broken {\n clok 5 MHz\n}\n")
    (tmp_path / "b.nnac").write_text('import "a.nnac"\npolicy b {\n model rnnt(size="small")\n target broken\n}\n')
    with pytest.raises(DiagnosticError) as caught:
        nnac.load(tmp_path / "b.nnac")
    assert caught.value.diagnostics[0].span.source.name.endswith("a.nnac")


def test_imports_cannot_leave_the_language(tmp_path):
    for name in ("/dev/null", "/etc/passwd", "\\0", "a" * 5000, "..", "."):
        with pytest.raises(DiagnosticError):
            nnac.loads(f'import "{name}"\npolicy p {{\n model rnnt(size="small")\n target edge\n}}')


# -- targets

def test_shipped_targets_are_what_the_design_says():
    space = Workspace()
    from nnac.language.machine import machine_of
    from nnac.language.tables import data_file

    found = {}
    for name in ("edge", "tiny", "large", "rapid"):
        path = data_file("specs", "targets", f"{name}.nnac").resolve()
        seen = scope(space, path, space.file(path))
        problems = []
        found[name] = machine_of(seen, seen.targets[name], problems)
        assert problems == []
        assert Target.from_json(found[name].to_json()) == found[name]
    edge = found["edge"]
    assert (edge.clock, edge.multipliers, edge.sram, edge.pinned, edge.dram.bandwidth) == (500_000_000, 256, 512 << 10,
        128 << 10, 3_750_000_000)
    assert (found["tiny"].lanes, found["tiny"].dram.bandwidth) == (16, 500_000_000)
    assert (found["large"].lanes, found["large"].columns, found["large"].clock, found["large"].dram.bandwidth) == (128,
        8, 10**9, 12 * 10**9)
    assert found["rapid"].macs_per_cycle("int4") == 8192 and found["rapid"].macs_per_cycle("fp16") == 1024


def test_dram_time_is_latency_and_whole_bursts():
    t = from_values("t", dict(clock=500_000_000, lanes=1, columns=1, sram=1, pinned=0,
                              dram=dict(bandwidth=3_750_000_000, latency=250, burst=128),
                              multiply={"int8": 1}))
    # 128 bytes at 7.5 bytes a cycle: 17.07, rounded up
    assert t.dram_cycles(1) == t.dram_cycles(128) == 250 + 18
    assert t.dram_cycles(129) == 250 + 35


def test_refresh_makes_a_bandwidth_a_peak_and_a_write_turns_the_bus_round():
    text = (HEAD + 'target real extends edge {\n dram refresh(1 / 16) turnaround(20 cycles)\n}\npolicy p {\n'
                   ' model rnnt(size="small")\n target real\n}')
    t = nnac.loads(text).plan.target
    assert (t.dram.delivered, t.dram.latency, Target.from_json(t.to_json())) == (3_750_000_000 * 15 // 16, 250, t)
    assert t.dram_cycles(128) == 250 + 19                     # 128 bytes at 7.03 bytes a cycle: 18.2, rounded up
    machine = MachineConfig.of(t)
    assert (machine.burst_cycles, machine.turnaround) == (Fraction(4096, 225), 2)
    plain = MachineConfig.of(evolve(t, dram=evolve(t.dram, turnaround=0)))
    store, load = STA(bytes=64), LDA(bytes=64)
    assert store.bursts(machine) - store.bursts(plain) == 2 and load.bursts(machine) == load.bursts(plain)
    assert "refresh" not in evolve(t, dram=evolve(t.dram, refresh=Fraction(0))).to_json()["dram"]


def energy_of(setting: str):
    return nnac.loads(f"{HEAD}target mine extends edge {{\n energy {setting}\n}}\npolicy p {{\n"
                      ' model rnnt(size="small")\n target mine\n}').plan.target.energy


def test_energies_are_derived_for_a_process_and_one_that_is_stated_leaves_it():
    assert energy_of("process(12 nm)") == derived(12)
    assert energy_of("mac(1 pJ)") == evolve(derived(22), mac=Fraction(1, 10**12), process=0)
    assert energy_of("process(12 nm) dram(20 pJ)") == evolve(derived(12), dram=Fraction(20, 10**12), process=0)
    with pytest.raises(DiagnosticError, match="energies are derived for processes from 7 to 45 nm, not for 90"):
        energy_of("process(90 nm)")
    with pytest.raises(DiagnosticError, match="a length"):
        energy_of("process(22)")


def test_energies_that_are_derived_rename_no_plan_that_was_made_while_they_were_stated():
    made = plan("")
    before = evolve(made.target, energy=Energy(*(Fraction(k, 10**13) for k in (2, 10, 200, 5))))
    assert made.target.energy.process == 22 and evolve(made, target=before).digest == made.digest
    assert evolve(made, target=evolve(before, energy=evolve(before.energy, mac=Fraction(1)))).digest != made.digest


def test_a_target_can_extend_another():
    text = (HEAD + 'target twice extends edge {\n lanes 128\n dram bandwidth(7.5 GB/s)\n}\npolicy p {\n'
                   ' model rnnt(size="small")\n target twice\n}')
    t = nnac.loads(text).plan.target
    assert (t.name, t.lanes, t.columns, t.dram.bandwidth, t.dram.burst) == ("twice", 128, 4, 7_500_000_000, 128)


def test_narrow_weights_are_multiplied_as_the_next_width():
    t = nnac.loads(f'{HEAD}policy p {{\n model rnnt(size="small")\n target edge\n}}').plan.target
    assert (t.multiply_width(5), t.multiply_width(8), t.multiply_width(9), t.multiply_width(17)) == ("int8", "int8",
        "int16", None)


def test_resolving_never_needs_the_heavy_libraries():
    import subprocess
    import sys

    code = ("import sys, nnac; p = nnac.load('specs/rnnt_int8.nnac').plan; p.to_json(); str(p); "
            "print([m for m in ('torch', 'numpy', 'networkx', 'lark', 'rich') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip() == "[]"


def test_a_file_is_about_the_policy_called_as_it_is_or_else_the_only_one_that_none_extends():
    """The last one was taken, in silence: whoever wrote an ablation below `gq` in gq.nnac compiled that."""
    a = HEAD + BASE + "policy a extends base {\n}\n"
    two = a + "policy b extends base {\n}\n"
    assert nnac.loads(a).name == "a" and nnac.loads(a, name="folder/base.nnac").name == "base"
    with pytest.raises(DiagnosticError, match=r"is about 2 policies.*--policy a` .*, or another of b"):
        nnac.loads(two)
    for name in ("a", "b", "base"):
        assert nnac.loads(two, name).name == nnac.loads(two, name=f"{name}.nnac").name == name
    with pytest.raises(DiagnosticError, match="no policy is called"):
        nnac.loads(HEAD + BASE, "bas")


def test_values_are_typed_for_the_lowering():
    p = plan("layers ** { weights int4 per_group(16); cell int16 fraction(3) }")
    w = p["encoder.lstm[0].input"].weights
    assert w.width == Width(4) and w.granularity == Granularity("group", 16) and p["encoder.lstm[0]"].cell.fraction == 3


def test_resolve_needs_the_policy_to_exist():
    space = Workspace()
    with pytest.raises(KeyError):
        resolve(scope(space, None, space.parse_text("t", "")), "nothing")
