"""`starved-kernel`: what lint says is left of a kernel is what the training module makes of it."""

from __future__ import annotations

import pytest
import torch

from nnac.language.check import check_text
from nnac.language.rules.scales import Starved, starved
from nnac.language.tables import data_file
from nnac.lower import lower_plan
from nnac.train.families.rnnt import Transducer

FRAMES, BATCH = 40, 4


def checked(weights: str = "int8 per_channel", inputs: str = "int8 percentile(99.99)", hidden: str = "int8 fixed(1)",
            accumulate: str = "acc32",
            rules: str = "", model: str = "cells=64, prediction_cells=64, embedding=64, features=32"):
    """The resolution of a policy for the tiny RNN-T, and the codes of its diagnostics."""
    found = check_text(f'import "targets/rapid.nnac"\npolicy p {{\n  model rnnt(size="tiny", {model})\n  target rapid\n'
                       f"  layers ** {{ weights {weights}; activations {inputs} }}\n"
                       f"  layers **.lstm[*] {{ hidden {hidden}; accumulate {accumulate} }}\n{rules}}}\n", "p.nnac")
    assert found.errors == 0, [str(d) for d in found.diagnostics]
    return found.resolutions[0], [d.code for d in found.diagnostics]


def codes(r) -> dict[str, torch.Tensor]:
    """Integer weights of every LSTM kernel, after calibration on noise: kernel path -> [rows, cols]."""
    torch.manual_seed(0)
    module = Transducer(lower_plan(r.plan), None, r.plan)
    noise = torch.Generator().manual_seed(1)
    width = module.graph.values["features"].width
    module.calibrate([(torch.randn(FRAMES, BATCH, width, generator=noise), torch.full((BATCH,), FRAMES),
                       torch.randint(1, 12, (6, BATCH), generator=noise)) for _ in range(2)])
    module.eval()
    forms, out = module.formats(), {}
    for node in module.graph.nodes:
        if node.op == "lstm":
            made = module.layer(node.path).constants([forms[n] for n in node.inputs], forms[node.output]).codes
            out |= {f"{node.path}.{name}": v for name, v in made.items()}
    return out


def found(r) -> dict[str, Starved]:
    return {f.kernel.path: f for layer in r.model if layer.kind == "lstm" for f in starved(r, layer)}


# what enters an LSTM of the tiny model is a layer norm, an embedding or noise: clips of 3 to 4, as in trained networks
@pytest.mark.parametrize("weights, inputs, hidden", [
    ("int8 per_channel", "int4 percentile(99.9)", "int8 fixed(1)"),       # at best 15 of 255: seen 5 to 9
    ("int4 per_channel", "int4 percentile(99.9)", "int8 fixed(1)"),       # zeros
    ("int4 per_channel", "int8 percentile(99.99)", "int4 fixed(1)"),      # the other way round, 5 of 15
    ("int4 per_gate sawb", "int8 percentile(99.99)", "int4 fixed(1)"),
    ("int8 per_channel", "int8 fixed(8)", "int8 fixed(0.25)"),            # widths alike, clips known: exactly 32 apart
    ("lloyd_max(4)", "int4 percentile(99.9)", "int8 fixed(1)"),           # centroids: one or two
], ids=lambda v: v.replace(" ", "-"))
def test_the_figure_is_what_the_training_module_leaves(weights, inputs, hidden):
    r, diagnostics = checked(weights, inputs, hidden)
    assert "starved-kernel" in diagnostics
    real, said = codes(r), found(r)
    assert {p.rpartition(".")[0] for p in said} == {"encoder.lstm[0]", "encoder.lstm[1]", "prediction.lstm[0]"}
    for path, f in said.items():
        left = len(real[path].unique())
        assert left <= f.levels + 2                                       # the best case, and the luck of one weight
        # an input clip of 4 is the worst that the rule expects
        assert left >= f.levels / 4
        other = path.replace("recurrent", "input") if path.endswith("recurrent") else path.replace("input", "recurrent")
        # the other kernel has them all (a clip within the range aside)
        assert len(real[other].unique()) >= 0.6 * f.whole


def test_separate_sums_give_every_kernel_its_codes_back():
    for inputs, hidden in (("int4 percentile(99.9)", "int8 fixed(1)"), ("int8 percentile(99.99)", "int4 fixed(1)")):
        r, diagnostics = checked("int4 per_channel", inputs, hidden, "sum16")
        assert "starved-kernel" not in diagnostics
        assert all(len(v.unique()) == 15 for v in codes(r).values())


@pytest.mark.parametrize("weights, inputs, hidden", [
    ("int8 per_channel", "int8 percentile(99.99)", "int8 fixed(1)"),
                                                     ("int4 per_channel", "int4 percentile(99.9)", "int4 fixed(1)"),
    ("int2 per_channel", "int8 percentile(99.99)", "int8"), ("lloyd_max(4)", "int8", "int8"),
    ("int8 per_channel", "int8 percentile(99.99)", "int4 fixed(1)"),      # 57 of 255: fewer, not few
    ("int8 per_channel", "int8 fixed(2)", "int8 fixed(1)"),
])
def test_kernels_with_codes_to_spare_are_not_reported(weights, inputs, hidden):
    r, diagnostics = checked(weights, inputs, hidden)
    assert "starved-kernel" not in diagnostics and not found(r)


def test_narrow_recurrent_weights_of_their_own_have_a_wider_kernel_to_share_with():
    rules = "  layers **.lstm[*].recurrent { weights int4 per_channel }\n"
    # 127 / 16 = 8: all 15 levels fit
    r, _ = checked(inputs="int8 fixed(4)", hidden="int8 fixed(0.25)", rules=rules)
    assert not found(r) and all(len(v.unique()) >= 15 for p, v in codes(r).items() if p.endswith("recurrent"))
    # kernels settled alike are one matrix: 7 / 16 rounds to nothing
    assert {f.levels for f in found(checked("int4 per_channel", "int8 fixed(4)",
                                            "int8 fixed(0.25)")[0]).values()} == {1}


def test_gates_of_their_own_width_are_seen_one_by_one():
    rules = "  layers encoder.lstm[1].{input, recurrent}.gate.f { weights int4 per_channel }\n"
    r, _ = checked(inputs="int8 fixed(8)", hidden="int8 fixed(0.25)", rules=rules)        # 127 / 32 = 4
    assert found(r)["encoder.lstm[1].recurrent"].levels == 9


def test_the_hidden_state_of_the_layer_below_is_the_input_where_no_norm_stands_between():
    model = "cells=64, prediction_cells=64, norm=false, stack=1, reduce=1, layers=3"
    apart = "  layers encoder.lstm[0] { hidden int4 fixed(1) }\n"
    r, diagnostics = checked("int8 per_channel", rules=apart, model=model)
    # int4 comes in, int8 goes round: 127 / (127 / 7) = 7, so 15 levels; lstm[0] itself has 57 of its input kernel's
    # left
    assert {p: f.levels for p,
            f in found(r).items()} == {"encoder.lstm[1].recurrent": 15} and diagnostics.count("starved-kernel") == 1
    top = codes(r)["encoder.lstm[1].recurrent"].abs().amax(1).median()
    assert 6 <= top <= 8


def test_what_enters_an_lstm_directly_is_held_as_its_activations_say():
    model = "cells=64, prediction_cells=64, norm=false, stack=1, reduce=1, layers=1"
    rules = "  layers encoder.lstm[0] { activations int8 fixed(4); hidden int8 fixed(4) }\n"
    assert not found(checked("int4 per_channel", "int8", "int8", rules=rules, model=model)[0])


def test_bidirectional_and_projected_layers_are_looked_at():
    r, diagnostics = checked("int4 per_channel", "int4 percentile(99.9)", "int8", model="cells=32, bidirectional=true")
    assert "starved-kernel" in diagnostics and "encoder.lstm[1].backward.recurrent" in found(r)
    # a projection's clip is calibrated, and may be as wide as the inputs': 4 apart at best
    said = found(checked("int4 per_channel", "int4 percentile(99.9)", "int8", model="cells=32, project=16")[0])
    assert said["encoder.lstm[1].recurrent"].levels == 5


def test_other_recurrent_layers_never_share_a_scale():
    found_ = check_text('import "targets/rapid.nnac"\npolicy p {\n  model dblstm\n  target rapid\n}\n', "p.nnac")
    assert all(d.code != "starved-kernel" for d in found_.diagnostics)


@pytest.mark.parametrize("path", sorted(data_file("specs").rglob("*.nnac")), ids=lambda p: p.name)
def test_no_shipped_policy_starves_a_kernel(path):
    from nnac.language.check import check_file

    assert [d.message for d in check_file(path).diagnostics if d.code == "starved-kernel"] == []
