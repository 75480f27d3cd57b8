"""Greedy decoding: the protocol, on NumPy and on torch, batched, alone and frame by frame."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnac.decode.integer import IntegerStepper, ProtocolError
from nnac.decode.search.greedy import advance, begin, greedy, transcribe
from nnac.executors.reference import Reference
from nnac.model.rnnt_torch import Rnnt, RnntConfig, join_frames
from tests.graphs import random_graph

CONFIG = RnntConfig(features=10, hidden=16, prediction=12, joint=14, embedding=6, vocabulary=9)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    m = Rnnt(CONFIG).eval()
    with torch.no_grad():      # untrained networks say one thing only: spread their opinions
        for p in m.parameters():
            p.mul_(3)
        m.joint.output.bias[0] += 0.5
    return m


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(2)
    return torch.randn(120, 5, 10, generator=g), torch.tensor([120, 61, 7, 90, 33])


def one_by_one(model, features, max_symbols=6):
    """The slow obvious version: one utterance, no batch, no rows taken out."""
    frames, lengths = model.encode(features[:, None], torch.tensor([len(features)]))
    out, (p, state) = [], model.start(1)
    for t in range(int(lengths[0])):
        for _ in range(max_symbols):
            k = int(model.joint(frames[t], p).argmax())
            if k == 0:
                break
            out.append(k)
            p, state = model.predict(np.array([k]), state)
    return out


@torch.no_grad()
def test_a_batch_is_decoded_as_its_utterances_alone(model, batch):
    features, lengths = batch
    together = transcribe(model, features, lengths)
    assert together == [one_by_one(model, features[: lengths[b], b]) for b in range(5)]
    assert sum(map(len, together)) > 20 and len({k for ids in together
                                                 for k in ids}) > 2, "the network should say something"


@torch.no_grad()
def test_frame_by_frame_gives_the_same_and_the_time_of_each_token(model, batch):
    features, lengths = batch
    frames, counts = model.encode(features, lengths)
    search = begin(model, 5)
    for t in range(len(frames)):
        advance(model, search, frames[t], t < counts.numpy())
    assert search.tokens == greedy(model, frames, counts)
    assert all(len(f) == len(k) and f == sorted(f) and max(f, default=0) < n
               for f, k, n in zip(search.frames, search.tokens, counts, strict=True))


class Script:
    """A NumPy network that says what a table says: scores[frame value][number of tokens said]."""

    def __init__(self, table):
        self.table = np.array(table)

    def start(self, batch):
        return np.zeros(batch, int), (np.zeros((batch, 1), int),)

    def predict(self, tokens, state):
        said = state[0] + 1
        return said[:, 0], (said,)

    def joint(self, frames, prediction):
        return self.table[frames, np.minimum(prediction, self.table.shape[1] - 1)]


def test_a_numpy_network_is_decoded_and_ties_go_to_the_lowest_id():
    blank, one, tie = [5, 0, 0], [0, 5, 0], [1, 3, 3]
    model = Script([[tie, blank, blank], [blank, one, blank]])
    assert greedy(model, np.array([[0, 1], [1, 0]]), np.array([2, 2])) == [[1, 1], [1]]


def test_a_network_that_never_stops_is_stopped():
    model = Script([[[0, 1]]])
    assert greedy(model, np.zeros((4, 1), int), np.array([3]), max_symbols=2) == [[1] * 6]


def test_an_utterance_without_frames_says_nothing(model):
    assert transcribe(model, torch.zeros(2, 1, 10), torch.tensor([2])) == [[]]


def test_joined_frames_are_in_order_and_a_rest_is_dropped():
    x = torch.arange(7.0).view(7, 1, 1)
    joined, lengths = join_frames(x, torch.tensor([7]), 3)
    assert joined[:, 0].tolist() == [[0, 1, 2], [3, 4, 5]] and lengths.tolist() == [2]


def test_training_and_stepping_see_the_same_joint(model):
    g = torch.Generator().manual_seed(3)
    x, n, y = torch.randn(36, 2, 10, generator=g), torch.tensor([36, 36]), torch.randint(1, 9, (4, 2), generator=g)
    with torch.no_grad():
        logits, lengths = model(x, n, y)
        frames, _ = model.encode(x, n)
        p, state = model.start(2)
        for u in range(5):
            for t in range(int(lengths[0])):
                torch.testing.assert_close(logits[:, t, u], model.joint(frames[t], p))
            if u < 4:
                p, state = model.predict(y[u], state)


@pytest.mark.parametrize("entry", ["encoder", "prediction", "joint"])
@pytest.mark.parametrize("lost", ["entry", "inputs", "outputs"])
def test_an_engine_that_lacks_an_entry_or_what_it_takes_and_makes_is_refused(entry, lost):
    """A program file with a right checksum may say so: it ended in a traceback where the search took the first."""
    whole = Reference(random_graph(5, size="tiny"))
    inputs, outputs = dict(whole.inputs), dict(whole.outputs)
    if lost == "entry":
        del inputs[entry], outputs[entry]
    else:
        dict(inputs=inputs, outputs=outputs)[lost][entry] = ()
    with pytest.raises(ProtocolError, match=f"`{entry}`"):
        IntegerStepper(SimpleNamespace(values=whole.values, inputs=inputs, outputs=outputs)).start(1)
    IntegerStepper(whole).start(1)
