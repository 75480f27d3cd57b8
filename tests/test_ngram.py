"""N-gram language models: probabilities by hand, a distribution in every state, ARPA there and back, the automaton
against back-off."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnac.decode.ngram import LanguageModelError, NGram, automaton, read_arpa, train, write_arpa
from nnac.speech.tokens import LETTERS, Tokens

ABC = Tokens("abc")


def test_absolute_discounting_by_hand():
    """Sentences `ab`, `aa`; d = .5.  Unigrams: a 3, b 1, end 2 of 6; left .5 * 3 / 6 = .25, a quarter of it each."""
    model = train([[1, 2], [1, 1]], 4, order=2, discount=0.5)
    p = {w: math.exp(model.log_probability((), w)) for w in range(4)}
    assert p == pytest.approx({1: 2.5 / 6 + 0.0625, 2: 0.5 / 6 + 0.0625, 0: 1.5 / 6 + 0.0625, 3: 0.0625})
    # after a: b 1, a 1, end 1 of 3; left .5 * 3 / 3 = .5
    assert math.exp(model.log_probability((1,), 2)) == pytest.approx(0.5 / 3 + 0.5 * p[2])
    assert math.exp(model.log_probability((1,), 3)) == pytest.approx(0.5 * p[3]), "never seen after a: backed off"
    assert math.exp(model.log_probability((3,), 2)) == pytest.approx(p[2]), "a context never seen says nothing"
    said = -sum(model.log_probability(c, w) for c, w in (((0,), 1), ((1,), 2), ((2,), 0)))
    assert model.nats([[1, 2]]) == pytest.approx(said)


def sentences(seed: int, count: int = 30, vocabulary: int = 4) -> list[list[int]]:
    r = np.random.default_rng(seed)
    return [r.integers(1, vocabulary, r.integers(0, 6)).tolist() for _ in range(count)]


@given(seed=st.integers(0, 10**6), order=st.integers(1, 5), discount=st.sampled_from([0.1, 0.5, 0.9]))
def test_every_context_has_a_distribution(seed, order, discount):
    model = train(sentences(seed), 4, order, discount)
    for context in model.contexts:
        assert sum(math.exp(model.log_probability(context, w)) for w in range(4)) == pytest.approx(1.0)


@given(seed=st.integers(0, 10**6), order=st.integers(1, 5))
def test_the_automaton_says_what_back_off_says(seed, order):
    model = train(sentences(seed), 4, order)
    made = automaton(model)
    r = np.random.default_rng(seed)
    row, state = made.start()
    context = (0,)
    for _ in range(8):
        wanted = [max(-32768, math.floor(model.log_probability(context, w) * 2048 + 0.5)) for w in range(4)]
        assert row[0].tolist() == wanted, context
        word = int(r.integers(1, 4))
        row, state = made.step(np.array([word]), state)
        context = (*context, word)


@given(seed=st.integers(0, 10**6), order=st.integers(1, 4))
def test_arpa_there_and_back_is_the_same_automaton(tmp_path_factory, seed, order):
    model = train(sentences(seed), 4, order)
    path = tmp_path_factory.mktemp("arpa") / "m.arpa"
    write_arpa(path, model, ABC)
    again = read_arpa(path, ABC)
    first = path.read_bytes()
    write_arpa(path, again, ABC)
    assert path.read_bytes() == first
    a, b = automaton(model), automaton(again)
    assert np.abs(a.rows.astype(int) - b.rows).max() <= 1, "9 digits: no more than a tie that rounds the other way"
    assert (a.successors == b.successors).all() and a.first == b.first
    assert automaton(read_arpa(path, ABC)).digest == b.digest


def test_an_arpa_file_of_others_is_read_by_its_own_numbers(tmp_path):
    """Written by hand: pruned (`b a` has a weight for no context's sake), `<unk>` for the token `c`, blank lines,
    spaces."""
    path = tmp_path / "hand.arpa"
    path.write_text("made by hand\n\\data\\\nngram 1=5\nngram 2=2\nngram 3=1\n\n\\1-grams:\n-1 <unk>\n-99 <s> -0.3\n"
                    "-0.5 a -0.2\n-0.6 b\n-0.7 </s>\n\n\\2-grams:\n-0.1 <s> a\n-0.4 a b -0.25\n\n\\3-grams:\n"
                    "-0.05 a b a\n\n\\end\\\nnothing more\n")
    model = read_arpa(path, ABC)
    ten = math.log(10)
    for context, word, log in (((), 3, -1), ((0,), 1, -0.1), ((0,), 2, -0.9), ((1,), 2, -0.4), ((1, 2), 1, -0.05),
                               ((1, 2), 3, -1.25), ((3, 1, 2), 0, -0.95), ((2,), 1, -0.5)):
        assert model.log_probability(context, word) == pytest.approx(log * ten), (context, word)
    made = automaton(model)
    _, state = made.step(np.array([1]), made.start()[1])
    row, _ = made.step(np.array([2]), state)
    assert row[0].tolist() == [math.floor(v * ten * 2048 + 0.5) for v in (-0.95, -0.05, -0.85, -1.25)]


@pytest.mark.parametrize(("text", "message"), [
    ("", "no \\data\\ line: not an ARPA file"), ("\\data\\\n\\end\\\n", "no n-grams between"),
    ("\\data\\\nngram 1=2\n\\1-grams:\n-1 a\n\\end\\", "1 1-grams where the head of the file announces 2"),
    ("\\data\\\nngram 1=1\n\\1-grams:\n-1 a\n", "cut short: no \\end\\"),
    ("\\data\\\nngram 1=1\n\\1-grams:\n-1 x\n\\end\\", ":4: `x` is none of the 3 tokens of the model"),
    ("\\data\\\nngram 1=1\n\\1-grams:\nminus a\n\\end\\", ":4: expected a logarithm, 1 words and perhaps a back-off"),
    ("\\data\\\nngram 1=1\n\\1-grams:\n0.5 a\n\\end\\", ":4: expected a logarithm"),
    ("\\data\\\nngram 1=1\n\\2-grams:\n-1 a b\n\\end\\", ":3: 2-grams, which the head of the file does not announce"),
    (f"\\data\\\nngram 1={'9' * 5000}\n\\end\\", ":2: expected `ngram ORDER=COUNT`"),
    (f"\\data\\\nngram 1=1\n\\{'9' * 50}-grams:\n\\end\\", f":3: `\\{'9' * 50}-grams:` is no section"),
    ("\\data\\\nngram 1\n\\end\\", ":2: expected `ngram ORDER=COUNT`"),
    ("\\data\\\nngram 2=1\n\\2-grams:\n-1 </s> b\n\\end\\", ":4: `</s>` cannot stand there"),
])
def test_a_file_that_is_no_model_of_these_tokens_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "bad.arpa"
    path.write_text(text)
    with pytest.raises(LanguageModelError) as caught:
        read_arpa(path, ABC)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value) and "\n" not in str(caught.value)


def test_letters_with_a_space_among_them_can_be_written(tmp_path):
    path = tmp_path / "letters.arpa"
    model = train([LETTERS.encode("a b"), LETTERS.encode("it's")], LETTERS.count, 3)
    write_arpa(path, model, LETTERS)
    assert automaton(read_arpa(path, LETTERS)).rows.shape == automaton(model).rows.shape


def test_what_cannot_be_trained_or_held_is_said():
    with pytest.raises(LanguageModelError, match="at least one sentence"):
        train([], 4)
    with pytest.raises(LanguageModelError, match="outside 1 … 3"):
        train([[4]], 4)
    large = NGram(1 << 20, 2, {(k,): ({}, 0.0) for k in range(1, 400)} | {(): ({}, 0.0)})
    with pytest.raises(LanguageModelError, match="400 contexts of 1048576 tokens take 2,400 MiB"):
        automaton(large)
