"""Loops over time, beyond being read right (tests/test_capture.py): on the machine, as ONNX, in chunks, trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nnac
from nnac import tensors
from nnac.executors import Subject
from nnac.ops._steps import narrowed, steps_of
from nnac.train.prepare import results
from tests import loops
from tests.agreement import agree, prepared
from tests.graphs import normed_steps
from tests.loops import L, Of, looped
from tests.test_capture import POLICY

GIVEN = {n for n in loops.right() if "given" in n}
QUICK = ("layer norm over all gates, and of the cell", "a light GRU", "a frame that is read twice")

NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in loops.right() if n not in GIVEN]


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_is_the_same_integers_on_the_machine_and_as_onnx(name, tmp_path):
    torch.manual_seed(0)
    make, example = loops.right()[name]
    agree(prepared(make(), example), example, tmp_path)


@pytest.mark.parametrize("cells", [9, 30, pytest.param(322, marks=pytest.mark.slow),
                                   pytest.param(400, marks=pytest.mark.slow)])
def test_cells_of_any_number_some_of_which_the_machine_leaves_to_the_cpu(cells, tmp_path, monkeypatch):
    """9: gates at odd places; 400: more than a norm of the machine takes."""
    monkeypatch.setattr(loops, "H", cells)
    torch.manual_seed(0)
    model = Of(looped(loops.normed_gates, 2), a=L(40, 4 * cells), u=L(cells, 4 * cells),
               n=loops.varied(nn.LayerNorm(4 * cells)), m=loops.varied(nn.LayerNorm(cells)))
    x = torch.randn(7, 2, 40)
    agree(prepared(model, (x,)), (x,), tmp_path)


@pytest.mark.parametrize("name, states", [("a loop that is given its states", dict(h=1, c=2)),
                                          ("a loop that is given its blend", dict(h=1))])
def test_chunk_by_chunk_gives_the_integers_of_the_whole_sequence(name, states):
    torch.manual_seed(0)
    make, (x, *begins) = loops.right()[name]
    own = make().eval()

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = own

        def forward(self, x, h, c=None):
            return self.own(x, h) if c is None else self.own(x, h, c)

    zeros = [torch.zeros_like(s) for s in begins]
    module = nnac.prepare_streaming(Named(), POLICY, (x, *zeros), states=states)
    module.calibrate([(x, *zeros)])
    with torch.no_grad():
        whole = results(module(x, *zeros))
        state, parts = zeros, []
        for chunk in x.split([5, 1, 6]):
            y, *state = results(module(chunk, *state))
            parts.append(y)
    assert torch.equal(torch.cat(parts), whole[0]) and all(map(torch.equal, state, whole[1:]))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_models_own_but_for_rounding(name):
    torch.manual_seed(0)
    make, example = loops.right()[name]
    model = make().eval()
    # a little beyond: what a format's end cuts off has no gradient
    module = prepared(model, tuple(1.1 * x for x in example))
    for m in (model, module):
        sum(y.square().mean() for y in results(m(*example))).backward()
    own, theirs = dict(module.named_parameters()), dict(model.named_parameters())
    for of, ours in module.original_names.items():
        real, rounded = theirs[of].grad.flatten(), own[ours].grad.flatten()
        assert float(F.cosine_similarity(real, rounded, dim=0)) > 0.995, of
        assert abs(float(rounded @ real / (real @ real)) - 1) < 0.03, of


def test_steps_are_read_as_they_are_written_and_their_formats_follow():
    text = normed_steps(8)
    steps = steps_of(text)
    assert str(steps) == text and steps.verified((32, 32), 8) == "" and not steps.unread((32, 32), 8)
    # both products, their sum and the cell's are the data's; a norm that tables alone read is Q3.12, a sigmoid Q0.15
    assert steps.known[:8] == (0, 0, 0, 0, 12, 12, 15, 12)
    assert steps.known[steps.hidden] == 15 and steps.known[15] == steps.known[2] == 0
    assert steps.unread((40, 40), 8), "eight rows more than the parts take"
    assert "goes beyond" in steps.verified((16, 16), 8)
    assert [narrowed(n) for n in (8, 1290, 1291, 2048)] == [0, 0, 1, 2]


def test_what_nothing_reads_is_left_out_and_what_is_there_twice_is_made_once():
    torch.manual_seed(0)
    make, example = loops.right()["a light GRU"]
    layer, = nnac.check(make().eval(), example).graph
    steps = steps_of(layer.attributes["steps"])
    assert sorted(s.op for s in steps.steps) == sorted(["sum", "part", "part", "sigmoid", "mul", "relu", "neg",
                                                        "sigmoid", "mul", "sum"])
    assert steps.keep == (steps.hidden,)


def test_a_cell_that_is_not_calibrated_says_so():
    make, example = loops.right()["a light GRU"]
    with pytest.raises(nnac.UncalibratedError):
        nnac.prepare(make().eval(), POLICY, example)(*example)


def test_a_checkpoint_keeps_the_formats_of_a_cell(tmp_path):
    torch.manual_seed(0)
    make, example = loops.right()["a light GRU"]
    module = prepared(make(), example)
    module.save(tmp_path / "m.nnc")
    subject = Subject.load(tmp_path / "m.nnc")
    arrays = {a.name: example[0].numpy() for a in subject.tensors.read}
    made, = tensors.run(subject, arrays).results
    with torch.no_grad():
        assert np.array_equal(made, module(*example).numpy())
