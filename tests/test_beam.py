"""Beam search: exact against two slow readings, batched as alone, and the same n-best lists from every executor."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnac import arith
from nnac.decode.fusion import Fusion, FusionError, fixed, real_rows
from nnac.decode.search import Hypothesis, names, search
from nnac.decode.search.beam import Beam
from nnac.decode.search.greedy import Greedy
from tests.lattices import Lattice, Sentences, by_the_book, exhaustive


def lists(found):
    return [[(h.tokens, h.times, h.score) for h in hypotheses] for hypotheses in found.nbest]


def over(beam, lattice, frames):
    """One utterance."""
    return lists(beam.over(lattice, np.asarray(frames)[:, None], np.array([len(frames)])))[0]


def test_searches_are_found_by_their_files():
    assert {"beam", "greedy"} <= set(names()) and search("beam") is Beam and search("greedy") is Greedy
    with pytest.raises(KeyError):
        search("bean")


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_what_adding_over_all_alignments_finds(seed):
    lattice, frames = Lattice(seed, 3), [0, 1, 2]
    wanted = exhaustive(lattice, frames, max_symbols=2)
    everything = Beam(1024, max_symbols=2, delta=1e6, nbest=1024)
    got = {tokens: score / 2048 for tokens, _, score in over(everything, lattice, frames)}
    assert got.keys() == wanted.keys() and len(wanted) == 127, "all prefixes of up to six of two labels"
    assert max(abs(got[p] - wanted[p]) for p in got) < 12 * 0.65 / 2048, "each of a few additions rounds once"


@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), vocabulary=st.integers(2, 6), beam=st.integers(1, 7), cap=st.integers(1, 4),
       lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4), coarse=st.sampled_from([1, 64, 2048, 8192]),
       delta=st.sampled_from([0.0, 1.0, 3.0, 100.0]), penalty=st.sampled_from([0.0, 0.7, -0.3]),
       fused=st.integers(0, 5))
def test_batched_and_cached_it_is_the_definition_word_for_word(seed, vocabulary, lengths, beam, cap, coarse, delta,
                                                               penalty, fused):
    """n-best lists with scores and times, equal; many ties where scores are coarse."""
    lms = [Sentences(seed + 1 + i, vocabulary, coarse) for i in range(2)]
    fusion = [Fusion(), Fusion((lms[0],), (0.3,)), Fusion(tuple(lms), (0.4, -0.3), bonus=0.1),
              Fusion((lms[0],), (0.5,), internal=-0.4), Fusion(bonus=0.5), Fusion(internal=-0.2)][fused]
    lattice = Lattice(seed, vocabulary, coarse)
    how = Beam(beam, cap, delta, penalty, nbest=beam, fusion=fusion)
    r = np.random.default_rng(seed)
    frames = r.integers(0, 9, (max(lengths), len(lengths)))
    got = lists(how.over(lattice, frames, np.array(lengths)))
    for b, length in enumerate(lengths):
        assert got[b] == by_the_book(lattice, frames[:length, b], how), (seed, b)


def test_ties_go_to_the_earlier_parent_and_the_lower_label():
    class Flat(Lattice):
        def row(self, frame, prefix):
            return np.full(4, -2048)

    got = over(Beam(5, max_symbols=1, nbest=5), Flat(0, 4), [0])
    assert [h[0] for h in got] == [(), (1,), (2,), (3,)], "the empty prefix ended at level 0"


def test_a_frame_ends_free_of_charge_at_the_cap():
    class Talkative(Lattice):
        def row(self, frame, prefix):
            return np.array([-9 * 2048, -1])

    tokens, times, score = over(Beam(2, max_symbols=3), Talkative(0, 2), [0, 1])[0]
    assert tokens == (1,) * 6 and times == (0, 0, 0, 1, 1, 1) and score == -6


def test_beam_1_is_not_greedy():
    """Greedy says the label at .55 and stays with it (.55 x .6 = .33); beam 1 keeps the best that has ended: silence,
    at .45."""
    class Early(Lattice):
        def row(self, frame, prefix):
            return real_rows(np.log([0.6, 0.4] if prefix else [0.45, 0.55]))

        def joint(self, frames, prediction):
            return self.scores(frames, prediction)

    frames, length = np.zeros((1, 1), int), np.array([1])
    assert Greedy(2).over(Early(0, 2), frames, length).best[0].tokens == (1,)
    assert Beam(1, max_symbols=2).over(Early(0, 2), frames, length).best[0].tokens == ()


def test_what_is_known_of_a_prefix_is_asked_for_once_and_rounds_count_as_if_alone():
    lattice, how = Lattice(5, 5), Beam(4, nbest=4)
    frames = np.array([[0, 0], [1, 1], [2, 2]])
    twice = how.over(lattice, frames, np.array([3, 3]))
    together = lattice.count("predict")
    alone = Lattice(5, 5)
    once = how.over(alone, frames[:, :1], np.array([3]))
    assert lists(twice)[0] == lists(twice)[1] == lists(once)[0]
    assert together == alone.count("predict"), "the second utterance asks for nothing new"
    for u in (0, 1):
        mine = twice.rounds[twice.rounds["utterance"] == u]
        assert [tuple(r)[1:] for r in mine] == [tuple(r)[1:] for r in once.rounds]
    assert once.rounds["prediction"].sum() == together + 1 and once.rounds["joint"].sum() == alone.count("scores")


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), beam=st.integers(1, 5), fused=st.booleans(), age=st.sampled_from([1, 256]),
       lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3))
@example(seed=1, beam=1, fused=True, age=1, lengths=[0, 5])         # one that ended with nothing said
@example(seed=1, beam=1, fused=False, age=1, lengths=[0, 7])
@example(seed=860, beam=2, fused=False, age=1, lengths=[0, 4, 10])  # … what another had said
def test_prefixes_that_are_forgotten_are_missed_by_nobody(seed, beam, fused, age, lengths):
    """Pruned after every frame, a search finds the same, and asks the same of the model unless it remembers for a frame
    only; what it counts as asked depends on neither pruning nor the batch."""
    how = Beam(beam, 3, 3.0, nbest=beam, fusion=Fusion((Sentences(seed, 4),), (0.3,), internal=-0.2 * fused))
    frames = np.random.default_rng(seed).integers(0, 9, (max(lengths), len(lengths)))
    found = {}
    for room in (-(10**9), 10**9):
        lattice = Lattice(seed, 4)
        with patch("nnac.decode.search.beam.ROOM", room), patch("nnac.decode.search.beam.AGE", age):
            found[room] = how.over(lattice, frames, np.array(lengths)), lattice.count("predict")
    (pruned, more), (kept, asked) = found.values()
    assert lists(pruned) == lists(kept) and pruned.rounds.tolist() == kept.rounds.tolist()
    assert more == asked or (age == 1 and more > asked)
    with patch("nnac.decode.search.beam.AGE", age):
        alone = how.over(Lattice(seed, 4), frames[:lengths[0], :1], np.array(lengths[:1]))
    mine = kept.rounds[kept.rounds["utterance"] == 0]
    assert lists(alone)[0] == lists(kept)[0] and mine.tolist() == alone.rounds.tolist()


def test_an_utterance_without_frames_is_silence():
    found = Beam(4, nbest=3).over(Lattice(0, 3), np.zeros((2, 2), int), np.array([0, 2]))
    assert found.nbest[0] == [Hypothesis((), (), 0)] and len(found.nbest[1]) == 3


# ----------------------------------------------------------------------------------------------------------- arithmetic

def test_log_add_is_within_rounding_of_the_logarithm_of_a_sum():
    table = arith.log_add_table().entries.astype(np.int64)
    a = np.random.default_rng(0).integers(-60000, 1, 20000)
    for b in (a - np.arange(20000) % 36000, a + 3, np.zeros(20000, np.int64)):
        exact = np.logaddexp(a / 2048, b / 2048) * 2048
        assert np.abs(arith.log_add(a, b, table) - exact).max() < 0.65
        assert (arith.log_add(a, b, table) == arith.log_add(b, a, table)).all()
        carried = arith.log_add(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(table)).numpy()
        assert (carried == arith.log_add(a, b, table)).all()


def test_the_fusion_formula_rounds_once():
    rows = [np.array([[-5, 3, -32768, 7]]), np.array([[-1, 1, -32768, -9]])]
    got = Fusion((None, None), (0.3, -0.2), bonus=0.25).worth(rows)
    assert fixed(0.3, 12) == 1229 and fixed(-0.2, 12) == -819
    pairs = ((3, 1), (-32768, -32768), (7, -9))
    expected = [0, *(int(np.floor((1229 * a - 819 * b) / 4096 + 0.5)) + 512 for a, b in pairs)]
    assert got.tolist() == [expected]


def test_weights_that_would_overflow_are_refused():
    with pytest.raises(FusionError, match="at most 4"):
        Fusion((None,), (4.5,))
    with pytest.raises(FusionError, match="4 language models: the sum of at most 3"):
        Fusion((None,) * 3, (1.0,) * 3, internal=-0.1)
    most = 3 * fixed(4.0, 12) * 32768 + 2048
    assert most < 1 << 31, "int32 holds the largest sum"


def test_real_log_probabilities_have_a_floor_of_16_nats():
    assert real_rows(np.array([0.0, -40.0])).tolist() == [0, -32768]


def test_a_model_without_an_internal_language_model_is_refused_where_it_is_taken_off():
    """A joint that multiplies says one thing for every prefix once its encoder is at zero."""
    class Multiplies(Lattice):
        def internal(self, prediction):
            return super().internal(self._pack([()] * len(prediction)))

    frames, lengths = np.zeros((6, 1), int), np.array([6])
    with pytest.raises(FusionError, match=r"the same after every prefix.*density ratio"):
        Beam(4, fusion=Fusion(internal=-0.3)).over(Multiplies(1, 5), frames, lengths)
    assert Beam(4).over(Multiplies(1, 5), frames, lengths).nbest[0], "nothing is asked of it otherwise"
    assert Beam(4, fusion=Fusion(internal=-0.3)).over(Lattice(1, 5), frames, lengths).nbest[0]
