"""Convolutions that begin a model, beyond being read right (tests/test_capture.py): how frames are given, on the
machine, as ONNX, within a transducer."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nnac
from nnac import tensors
from nnac.capture import PrepareError
from nnac.decode.tensors import Argument, Patches, TensorEnd, TensorError
from nnac.executors import Subject
from nnac.train.prepare import results
from tests import patches, published
from tests.agreement import agree, prepared
from tests.test_capture import POLICY

QUICK = ("subsampling by four", "a convolution that hears what comes", "bands that a norm reads")
NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in patches.right()]
ONE = Patches(3, 2, 1, 1, 0, 2, 2, 1, 0, 0)        # three frames every two, two bands every two; a zero before


def test_a_patch_is_what_the_convolution_reads():
    """Four frames of four bands, numbered; the first tap of the first patch is a zero."""
    a = Argument("x", False, ("batch", "time"), 4, (ONE,))
    assert a.places(4).tolist() == [[-1, -1, 0, 1, 4, 5], [-1, -1, 2, 3, 6, 7],
                                    [4, 5, 8, 9, 12, 13], [6, 7, 10, 11, 14, 15]]
    x = np.arange(1.0, 17.0, dtype=np.float32).reshape(1, 4, 4)
    heard = a.sequence(x)
    assert heard.shape == (4, 1, 6) and heard.dtype == np.float32 and heard[0, 0].tolist() == [0, 0, 1, 2, 5, 6]
    assert np.array_equal(a.sequence(torch.from_numpy(x)).numpy(), heard)
    assert (a.vectors(4), a.vectors(1), a.frames(2), a.frames(4)) == (4, 0, 2, 4)


@pytest.mark.parametrize("of", [((3, 2), (2, 1)), ((3, 1), (3, 2), (2, 2))], ids=str)
def test_patches_of_patches_are_what_torch_unfolds(of):
    draw = torch.Generator().manual_seed(0)
    x, levels, y = torch.randn(1, 17, 11, generator=draw), [], None
    for taps, hop in of:
        levels.append(Patches(taps, hop, 1, 0, 0, taps, hop, 1, 0, 0))
        y = x if y is None else y
        y = y.unfold(1, taps, hop).unfold(2, taps, hop)
    a = Argument("x", False, ("batch", "time"), 11, tuple(levels))
    steps, bands = y.shape[1:3]
    # the last level's patches first, each of them whole: [steps, bands, (taps, bands of the last), …, of the first]
    pairs = [(3 + 2 * k, 4 + 2 * k) for k in range(len(of))]
    order = [1, 2, *(axis for pair in reversed(pairs) for axis in pair)]
    expected = y.permute(0, *order).reshape(steps * bands * int(np.prod([t * t for t, _ in of[1:]])), 1, of[0][0] ** 2)
    assert torch.equal(a.sequence(x), expected)


def test_an_argument_travels_as_plain_data_and_says_when_frames_are_too_few():
    a = Argument("x", False, ("time", "batch"), 4, (ONE, Patches(4, 1, 1, 0, 0, 1, 1, 1, 0, 0)))
    end = TensorEnd((a,), (), False)
    data = end.to_json()
    assert Argument.from_json(data["arguments"][0]) == a
    with pytest.raises(TensorError, match="has 5 frames: too few"):
        a.check(np.zeros((5, 1, 4), np.float32))
    a.check(np.zeros((9, 1, 4), np.float32))
    with pytest.raises(ValueError, match="patches"):
        Argument.from_json({**data["arguments"][0], "hears": [{**data["arguments"][0]["hears"][0], "hop": 0}]})


@pytest.mark.parametrize("name", NAMES)
def test_a_convolution_is_the_same_integers_on_the_machine_and_as_onnx(name, tmp_path):
    torch.manual_seed(0)
    make, example = patches.right()[name]
    agree(prepared(make(), example), example, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_models_own_and_weights_go_back_where_they_were(name):
    torch.manual_seed(1)
    make, example = patches.right()[name]
    model = make().eval()
    module = prepared(model, example)
    back = module.original_state_dict()
    assert all(torch.equal(back[n], p) for n, p in model.named_parameters())
    results(model(*example))[0].square().mean().backward()
    for real, least in ((True, 0.9999), (False, 0.8)):              # the same; and what rounding to int8 leaves of it
        module.zero_grad()
        with module.real_numbers() if real else nullcontext():
            results(module(*example))[0].square().mean().backward()
        for (path, n), theirs in module.captured.sources.items():
            if theirs:
                ours, whole = module.layer(path).get_parameter(n).grad, dict(model.named_parameters())[theirs].grad
                index = module.captured.places.get((path, n))
                own = whole if index is None else whole.flatten()[index.clamp_min(0)] * (index >= 0)
                assert float(F.cosine_similarity(ours.flatten(), own.flatten(), dim=0)) > least, n


class Subsampled(nn.Module):
    """icefall's and ESPnet's front, and LSTMs."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.ReLU())
        self.out, self.rnn = nn.Linear(18, 8), nn.LSTM(8, 8, 2, batch_first=True)

    def forward(self, x, lengths=None):
        return self.rnn(self.out(patches.joined(self.c(x.unsqueeze(1)))))[0]


def test_a_transducer_with_subsampling_in_front_hears_each_utterance_to_its_end(tmp_path):
    torch.manual_seed(0)
    x, n = torch.randn(3, 43, 16), torch.tensor([43, 39, 30])
    encoder = Subsampled().eval()
    module = nnac.prepare_transducer(encoder=encoder, prediction=published.Labels(),
                                     joint=published.IcefallJoiner(False), blank=0, example=(x, published.LABELS),
                                     policy=POLICY.replace("model  module", "model  transducer"))
    module.calibrate([(x, n, published.LABELS)])
    with torch.no_grad():
        _, lengths = module(x, n, published.LABELS)
    assert lengths.tolist() == [len(encoder(x[:1, :k])[0]) for k in n.tolist()] == [10, 9, 6]
    module.save(tmp_path / "m.nnc")
    subject = Subject.load(tmp_path / "m.nnc")
    found = tensors.compare(subject, subject, dict(features=x.numpy()), ("torch", "emulator"))
    assert found.compared and not found.different
    with pytest.raises(PrepareError, match="hears no audio"):
        module.save(tmp_path / "n.nnc", object())
