"""Word error rate: counts, intervals, and greedy decoding's text."""
import numpy as np
import pytest

from nnac.speech.wer import difference_interval, normalised, rate_interval, word_errors


def test_counts_of_a_case_worked_by_hand():
    # "on" -> "off" (S), "the" lost (D), "please" added (I); 5 words
    e = word_errors(["turn on the kitchen light"], ["turn off kitchen light please"])
    assert (e.substitutions, e.deletions, e.insertions, e.words) == (1, 1, 1, 5)
    assert e.rate == pytest.approx(60.0) and e.per_utterance == (3,) and e.words_per_utterance == (5,)


def test_an_empty_hypothesis_deletes_everything_and_an_empty_reference_counts_insertions():
    e = word_errors(["call tim", ""], ["", "hello there"])
    assert (e.deletions, e.insertions, e.errors, e.words) == (2, 2, 4, 2)


def test_counts_agree_with_an_edit_distance_of_our_own():
    def distance(a, b):
        d = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            before, d[0] = d[0], i
            for j, y in enumerate(b, 1):
                before, d[j] = d[j], min(d[j] + 1, d[j - 1] + 1, before + (x != y))
        return d[-1]
    r = np.random.default_rng(3)
    texts = [" ".join(r.choice(list("abcde"), r.integers(1, 8))) for _ in range(200)]
    others = [" ".join(r.choice(list("abcde"), r.integers(0, 8))) for _ in range(200)]
    e = word_errors(texts, others)
    assert list(e.per_utterance) == [distance(a.split(), b.split()) for a, b in zip(texts, others, strict=True)]
    assert e.errors == sum(e.per_utterance)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 references, 1 hypotheses"):
        word_errors(["a", "b"], ["a"])


def references(n=400):
    r = np.random.default_rng(0)
    return [" ".join(r.choice(["red", "green", "lamp", "oven", "call"], 6)) for _ in range(n)]


def corrupted(texts, share, seed):
    r = np.random.default_rng(seed)
    return [" ".join("wrong" if r.random() < share else w for w in t.split()) for t in texts]


def test_the_interval_covers_the_rate_and_narrows_with_more_utterances():
    wide, narrow = (word_errors(t, corrupted(t, 0.1, 1)) for t in (references(100), references(1600)))
    for e in (wide, narrow):
        low, high = rate_interval(e)
        assert low < e.rate < high
    spread = [high - low for low, high in (rate_interval(wide), rate_interval(narrow))]
    assert spread[1] < spread[0] / 2


def test_a_paired_interval_sees_what_two_separate_ones_cannot():
    texts = references()
    a_text = corrupted(texts, 0.1, 1)
    # ten utterances get worse
    b_text = [t if k % 40 else t.replace(t.split()[0], "worse", 1) for k, t in enumerate(a_text)]
    a, b = word_errors(texts, a_text), word_errors(texts, b_text)
    low, high = difference_interval(a, b)
    assert 0 < low <= b.rate - a.rate <= high
    assert rate_interval(a)[1] > rate_interval(b)[0]
    assert difference_interval(a, a) == (0.0, 0.0)


def test_a_paired_interval_needs_the_same_utterances():
    with pytest.raises(ValueError, match="same utterances"):
        difference_interval(word_errors(["a b"], ["a"]), word_errors(["a"], ["a"]))


def test_intervals_repeat():
    e = word_errors(references(), corrupted(references(), 0.2, 5))
    assert rate_interval(e) == rate_interval(e)


@pytest.mark.parametrize(("text", "plain"), [("Turn ON the Light.", "turn on the light"),
                                             ("It’s ‘five’ o'clock!", "it's five o'clock"),
                                             ("half-past\tten — now", "half past ten now"), ("ÉTÉ, 20%", "été 20"),
                                             ("", ""), ("'", "")])
def test_normalised_texts_have_neither_case_nor_punctuation(text, plain):
    assert normalised(text) == plain == normalised(plain)
