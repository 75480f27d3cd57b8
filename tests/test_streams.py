"""Long audio as a stream: the same integers as the whole, whatever the blocks, in memory that does not grow."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.small import make
from nnac.compare import compare, plant
from nnac.decode import streams
from nnac.decode.front_end import held, hypotheses, in_batches, is_long
from nnac.decode.integer import stepping, whole_steps
from nnac.decode.search.beam import Beam
from nnac.decode.search.greedy import Greedy
from nnac.decode.streams import Frames, Stream
from nnac.executors import Subject, executor
from nnac.executors.reference import Reference
from nnac.speech.audio import AudioError, write_wav


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """3.1 s at a rate that is resampled, and a front end's frame shorter than a step at the end."""
    path = tmp_path_factory.mktemp("audio") / "x.wav"
    r = np.random.default_rng(5)
    write_wav(path, (r.standard_normal(35_000) * 4000 * np.sin(np.arange(35_000) / 900) ** 2).astype(np.int16), 11025)
    return path


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 5))
def test_blocks_cut_anew_are_whole_steps_of_the_same(sizes, rate):
    ends = list(itertools.accumulate(sizes))
    whole = np.arange(sum(sizes))
    made = list(whole_steps((whole[e - n:e] for n, e in zip(sizes, ends, strict=True)), rate))
    assert all(len(b) and len(b) % rate == 0 for b in made)
    assert np.array_equal(np.concatenate([whole[:0], *made]), whole[:len(whole) // rate * rate])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(0, 400))
def test_a_stream_is_the_features_of_the_whole_at_any_block(small, audio, size, length):
    front = Subject.load(small.program).front
    whole, seconds = front.hear(audio)
    stream, again = streams.listen(audio, front.features, front.normalisation, longest=20)
    assert isinstance(stream, Stream) and len(stream) == len(whole) and again == seconds
    blocks = list(stream[:length].blocks(size))
    assert all(len(b) == size for b in blocks[:-1])
    assert np.array_equal(np.concatenate([whole[:0], *blocks]), whole[:length])


def test_what_is_short_or_comes_through_a_pipe_is_held(small, audio, tmp_path):
    import os
    import threading

    front = Subject.load(small.program).front
    assert isinstance(front.listen(audio)[0], np.ndarray)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(audio.read_bytes()))
    writer.start()
    held, _ = streams.listen(tmp_path / "pipe", front.features, front.normalisation, longest=20)
    writer.join()
    assert np.array_equal(held, front.hear(audio)[0])


@pytest.mark.parametrize("search", [Greedy(), Beam(beam=3, nbest=3)], ids=["greedy", "beam"])
@pytest.mark.parametrize("engine", ["emulator", "reference", "torch"])
@pytest.mark.parametrize("block", [7, 64])
def test_a_stream_is_recognised_as_the_whole(small, audio, engine, search, block, monkeypatch):
    """Hypotheses, times, scores and what the search asked for; every integer that the encoder makes."""
    subject = Subject.load(small.checkpoint)
    front, seen = subject.front, {"whole": {}, "stream": {}}
    whole, _ = front.hear(audio)
    stream, _ = streams.listen(audio, front.features, front.normalisation, longest=20)
    whole = whole[:len(whole) // 8 * 8]                             # a rest shorter than a step is heard by nobody
    monkeypatch.setattr(Stream.blocks, "__defaults__", (block,))
    monkeypatch.setattr(streams, "LONG", 20)
    found = {}
    for name, features in (("whole", whole), ("stream", stream)):
        def watch(value, integers, into=seen[name]):
            into.setdefault(value, []).append(np.array(integers if integers.ndim == 3 else integers[None], np.int64))

        rounds = []
        with stepping(executor(engine, subject), watch) as stepper:
            nbest = hypotheses(stepper, [features], search=search, rounds=lambda i, asked, r=rounds: r.append(asked))
        found[name] = nbest, rounds
    assert found["whole"][0] == found["stream"][0]
    assert all(np.array_equal(a, b) for a, b in zip(found["whole"][1], found["stream"][1], strict=True))
    assert seen["whole"].keys() == seen["stream"].keys()
    for value, parts in seen["whole"].items():
        one, other = (np.concatenate([p.ravel() for p in ps]) for ps in (parts, seen["stream"][value]))
        assert np.array_equal(one, other), value


@pytest.mark.parametrize("search", [Greedy(), Beam(beam=3, nbest=3)], ids=["greedy", "beam"])
def test_a_stream_is_compared_as_the_whole(small, audio, search, monkeypatch):
    """Piece by piece: as many integers, the same n-best lists, and a planted fault is found where it is found in the
    whole."""
    subject = Subject.load(small.checkpoint)
    front, bad = subject.front, Reference(plant(subject.graph, "encoder.lstm[0]")[0])
    monkeypatch.setattr(Stream.blocks, "__defaults__", (64,))
    whole = [front.hear(audio)[0]]
    one = executor("torch", subject)
    for two, equal in ((executor("emulator", subject), True), (bad, False)):
        monkeypatch.setattr(streams, "LONG", 30_000)
        wanted = compare(one, two, front, whole, search=search)
        monkeypatch.setattr(streams, "LONG", 20)
        found = compare(one, two, front, [front.listen(audio)[0]], search=search)
        assert found.equal == wanted.equal == equal and found.first == wanted.first
        assert (found.nbest, found.expected_nbest) == (wanted.nbest, wanted.expected_nbest)
        assert found.compared == wanted.compared and found.steps == wanted.steps


def test_of_many_files_a_batch_is_held_and_the_others_are_read_again(small, audio, tmp_path, monkeypatch):
    front = Subject.load(small.program).front
    whole, seconds = front.hear(audio)
    monkeypatch.setattr(streams, "HELD", 2 * len(whole) + 1)
    heard = front.listen_all([str(audio)] * 4)
    assert [type(f) for f, _ in heard] == [np.ndarray] * 2 + [Stream] * 2 and {s for _, s in heard} == {seconds}
    assert not any(is_long(f) for f, _ in heard) and all(np.array_equal(held(f), whole) for f, _ in heard)
    assert list(in_batches([f for f, _ in heard], 3)) == [[0, 1, 2], [3]]
    gone = tmp_path / "x.wav"
    gone.write_bytes(audio.read_bytes())
    stream, _ = streams.listen(gone, front.features, front.normalisation, longest=20)
    write_wav(gone, np.zeros(5000, np.int16))
    with pytest.raises(AudioError, match=r"x.wav: has become shorter while it was listened to"):
        held(stream)


def test_a_search_that_goes_back_is_told():
    frames = Frames(iter([np.zeros((3, 1)), np.zeros((2, 1))]), 5)
    assert [frames[t].shape for t in (0, 2, 3, 4)] == [(1,)] * 4
    with pytest.raises(AssertionError, match="goes forward"):
        frames[1]


class Chatty:
    """A stepper whose encoder hands its features on, and whose joint says what comes to its mind; a prediction takes
    8 KB."""

    def __init__(self):
        self.random = np.random.default_rng(0)

    def start(self, batch):
        return self.predict(np.zeros(batch, np.int64), (np.zeros((batch, 1)),))

    def predict(self, tokens, state):
        return np.zeros((len(tokens), 1024)), state

    def scores(self, frames, prediction):
        return self.random.integers(-30_000, 0, (len(frames), 3)) * [0, 1, 1]

    def joint(self, frames, prediction):
        return self.random.integers(0, 2, (len(frames), 2))

    def frames_of(self, count):
        return count // 32

    def encode_pieces(self, blocks):
        return (block[::32] for block in whole_steps(blocks, 32))


@pytest.mark.parametrize("search", [Greedy(), Beam(beam=3, nbest=3)], ids=["greedy", "beam"])
def test_memory_does_not_grow_with_the_length(small, tmp_path, search, monkeypatch):
    """Eight times the audio, from the file to the search: what is held grows by what a search remembers of each frame,
    and not by the predictions that it asks for, several a second.  Both files are longer than any block on the way."""
    front, most = Subject.load(small.program).front, {}
    monkeypatch.setattr("nnac.decode.search.beam.ROOM", 16)
    monkeypatch.setattr("nnac.decode.search.beam.AGE", 16)
    for seconds in (20, 160):
        write_wav(tmp_path / "x.wav", np.zeros(16_000 * seconds, np.int16))
        tracemalloc.start()
        stream, heard = streams.listen(tmp_path / "x.wav", front.features, front.normalisation, longest=500)
        streams.streamed(Chatty(), search, stream[:len(stream)])
        most[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert heard == seconds
    assert most[160] < most[20] + 140 * 8_192 and most[160] < 12e6, most
