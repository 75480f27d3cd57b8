"""The typo audit of compression toolkits, asked of nnac: each mistake that others take in silence must be an error that
names the place and the near name.  The peers' answers to the same cases: 8 of 11 systems let a mis-spelled layer pass;
none gives a line or suggests the near name."""

from __future__ import annotations

import json

import pytest

import nnac
from nnac.diagnostics import DiagnosticError

TEMPLATE = '''import "targets/edge.nnac"
policy p {{
  model rnnt(size="small")
  target edge
  training {{ steps 6k steps }}
  {}
}}
'''
# the audit's case -> the same mistake in a policy, the line of it, the near name that must be suggested
CASES = {
    "a mis-spelled layer name (lienar1)": ("layers joint.outptu { activations int8 }", "`joint.output`"),
    "a pattern that matches nothing (encodr.*)": ("layers encodr.** { weights int4 }", "`encoder`"),
    "a pattern that matches nothing beside one that does": ("layers encoder.**, encodr.** { weights int4 }",
                                                            "`encoder`"),
    "a mis-spelled tensor in a pattern (*weight_quantzer)": ("layers encoder.lstm[*].recurent { weights int4 }",
                                                             "recurrent`"),
    "an index that does not exist": ("layers encoder.lstm[7] { activations int8 }", "`lstm[0]` to `lstm[2]`"),
    "a mis-spelled option (weight_bit_widht)": ("layers ** { wieghts int4 }", "`weights`"),
    "a mis-spelled option of the cell (cell_state_bit_widht)": ("layers **.lstm[*] { cel int16 }", "`cell`"),
    "a mis-spelled argument (granularty)": ("layers ** { weights int4 per_chanel }", "`per_channel`"),
    "a mis-spelled keyword argument (ignored_scop)": ("layers encoder.lstm[*].** { weights gq(5, freqency=2) }",
                                                      "`frequency`"),
    "a mis-spelled top-level key (modul_name)": ("trainin { steps 6k steps }", "`training`"),
    "an unknown method (QuantisationModifier)": ("layers encoder.lstm[*].** { sparsity magnitud(50%) }", "`magnitude`"),
    "an unknown scheme (W4A17)": ("layers ** { activations int17 }", "int16"),
    "width 0": ("layers ** { weights int0 }", "int1"),
    "width -3": ("let bits = -3\n  layers ** { weights int(bits) }", "at least 1"),
    "a width that is none (qint9)": ("layers ** { weights int9 }", "int8"),
    "a width of the wrong kind (bits=7.5)": ("layers encoder.lstm[*].** { weights gq(7.5) }", "a whole number"),
    "a unit that is none": ("layers encoder.lstm[*].** { sparsity csp(75%, to=4k stps) }", "`steps`"),
    "a target type that does not exist ('Lienar')": ("layers **.lsmt[*] { activations int8 }", "lstm"),
    "an operator that does not exist (Gemmm)": ("layers joint.activatoin { place cpu }", "`joint.activation`"),
    "a setting where it can do nothing (pruning an nn.LSTM: silent elsewhere)": ("layers encoder.norm[0] { weights "
                                                                                 "int4 }", "kernels and gates"),
}
SILENT_ELSEWHERE = {"overlap: later entry wins? 8-bit then 4-bit on same pattern": "layers ** { weights int8 }\n  "
                    "layers ** { weights int4 }"}


@pytest.mark.parametrize("case", CASES)
def test_no_mistake_passes_in_silence(case):
    body, near = CASES[case]
    with pytest.raises(DiagnosticError) as caught:
        nnac.loads(TEMPLATE.format(body), name="p.nnac")
    errors = [d for d in caught.value.diagnostics if d.severity == "error"]
    assert len(errors) == 1, "one mistake, one error"
    (error,) = errors
    line, _ = error.span.source.position(error.span.start)
    assert line == 5 + len(body.split("\n")), "the place is named"
    assert near in " ".join([error.message, *error.help, *(label.text for label in error.labels)]), error


def test_overlapping_patterns_are_resolved_by_a_rule_and_said():
    policy = nnac.loads(TEMPLATE.format(SILENT_ELSEWHERE["overlap: later entry wins? 8-bit then 4-bit on same "
                                                         "pattern"]))
    assert policy.plan["joint.output.weight"].weights.bits == 4
    assert [d.code for d in policy.diagnostics] == ["overridden"]


def row() -> dict[str, object]:
    """Our row of the audit."""
    named = suggested = 0
    for body, near in CASES.values():
        try:
            nnac.loads(TEMPLATE.format(body))
        except DiagnosticError as e:
            first = next(d for d in e.diagnostics if d.severity == "error")
            named += first.span is not None
            suggested += near in " ".join([first.message, *first.help])
    return {"system": f"nnac {nnac.__version__}", "cases": len(CASES), "errors": named, "place named": named,
            "near name suggested": suggested,
            "silent": len(CASES) - named}


def test_the_row_for_the_table():
    assert row() == {"system": f"nnac {nnac.__version__}", "cases": 20, "errors": 20, "place named": 20,
                     "near name suggested": 20, "silent": 0}


if __name__ == "__main__":
    print(json.dumps(row()))
