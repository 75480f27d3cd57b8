"""Convolutions that begin a model, beyond being read right (tests/test_capture.py): how frames are given, on the
machine, as ONNX, within a transducer."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import nnac
from nnac import tensors
from nnac.capture import PrepareError
from nnac.decode.front_end import FrontEnd
from nnac.decode.patches import Hearing, Patches
from nnac.decode.tensors import Argument, TensorEnd, TensorError
from nnac.executors import Subject
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens
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
    assert a.hearing.places(5).tolist() == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11],
                                            [8, 9, 12, 13, 16, 17], [10, 11, 14, 15, 18, 19]]
    x = np.arange(1.0, 17.0, dtype=np.float32).reshape(1, 4, 4)
    heard = a.sequence(x)
    assert heard.dtype == np.float32 and heard[:, 0].tolist() == [[0, 0, 1, 2, 5, 6], [0, 0, 3, 4, 7, 8],
                                                                  [5, 6, 9, 10, 13, 14], [7, 8, 11, 12, 15, 16]]
    assert np.array_equal(a.sequence(torch.from_numpy(x)).numpy(), heard)
    h = a.hearing
    assert (h.vectors(4), h.vectors(1), h.frames(2), h.frames(4), h.read(4)) == (4, 0, 2, 4, 5)
    assert (h.reach, h.hop, h.vectors_of_step, h.vector_width, h.growth) == (3, 2, 2, 6, 1.5)


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


@st.composite
def hearings(draw):
    """Of one to three convolutions, zeros in time and beside the bands of the first."""
    width = left = draw(st.integers(1, 7))
    levels = []
    for i in range(draw(st.integers(1, 3))):
        bands, apart = draw(st.integers(1, min(left, 3))), draw(st.integers(1, 2))
        around = [draw(st.integers(0, 3)) if not i else 0 for _ in range(4)]
        apart = apart if (bands - 1) * apart < left + around[2] + around[3] else 1
        levels.append(Patches(draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 2)), around[0],
                              around[1], bands, draw(st.integers(1, 2)), apart, around[2], around[3]))
        left = levels[-1].bands_of(left)
    return Hearing(width, tuple(levels))


@settings(max_examples=200, deadline=None)
@given(hearings(), st.integers(0, 40), st.lists(st.integers(0, 9), max_size=8))
@example(Hearing(1, (Patches(1, 1, 1, 1, 0, 1, 1, 1, 0, 0),)), 0, [])     # zeros alone make a vector, and none is heard
def test_patches_come_block_by_block_as_they_do_at_once_and_as_they_are_counted(hearing, frames, cuts):
    """Against the grid of the whole, zeros and all, level by level."""
    x = np.random.default_rng(0).standard_normal((frames, 2, hearing.width)).astype(np.float32)
    grid = np.arange(1, frames * hearing.width + 1).reshape(frames, hearing.width)
    for level in hearing.levels if frames else ():
        grid = level.taken(grid)
    at = grid.reshape(-1, hearing.vector_width) if frames else np.zeros((0, hearing.vector_width), np.int64)
    flat = np.concatenate([np.zeros((1, 2), np.float32), x.transpose(0, 2, 1).reshape(-1, 2)])
    expected = flat[at.clip(0)].transpose(0, 2, 1)
    made = hearing.of(x)
    assert made.dtype == np.float32 and np.array_equal(made, expected)
    assert np.array_equal(hearing.of(torch.from_numpy(x)).numpy(), expected)
    assert hearing.vectors(frames) == len(expected) == hearing.steps(frames) * hearing.vectors_of_step
    ends = np.minimum(np.cumsum([0, *cuts, 99]), frames)
    blocks = [x[a:b, 0] for a, b in itertools.pairwise(ends)]
    pieces = list(hearing.pieces(iter(blocks)))
    assert np.array_equal(np.concatenate([expected[:0, 0], *pieces]), expected[:, 0])
    assert all(len(p) % hearing.vectors_of_step == 0 for p in pieces)
    assert Hearing.from_json(hearing.width, hearing.to_json()) == hearing


def test_an_argument_travels_as_plain_data_and_says_when_frames_are_too_few():
    a = Argument("x", False, ("time", "batch"), 4, (ONE, Patches(4, 1, 1, 0, 0, 1, 1, 1, 0, 0)))
    end = TensorEnd((a,), (), False)
    data = end.to_json()
    assert Argument.from_json(data["arguments"][0]) == a
    with pytest.raises(TensorError, match="has 5 frames: too few"):
        a.check(np.zeros((5, 1, 4), np.float32))
    a.check(np.zeros((9, 1, 4), np.float32))
    first, second = data["arguments"][0]["hears"]
    for wrong, words in (([first | dict(hop=0)], "patches have"), ([first, second | dict(before=1)], "zeros stand"),
                         ([first | dict(bands=9)], "hold none"), ([first | dict(taps=1 << 17)], "patches have"),
                         ([first | dict(taps=1 << 16, apart=1 << 16)], "more than any model")):
        with pytest.raises(ValueError, match=words):
            Argument.from_json({**data["arguments"][0], "hears": wrong})


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
    front = FrontEnd(FeatureSpec(bins=15), Normalisation(np.zeros(15), np.ones(15)), Tokens(tuple("abcdefgh")))
    with pytest.raises(PrepareError, match=r"hears 16 features.*makes 15 features"):
        module.save(tmp_path / "n.nnc", front)
