"""Tokens: our encoding is sentencepiece's, without sentencepiece."""

import json

import numpy as np
import pytest

from nnac.speech.sentences import sentence
from nnac.speech.tokens import LETTERS, TokenError, Tokens, word_pieces


@pytest.fixture(scope="module")
def texts():
    r = np.random.default_rng(0)
    return [sentence(r) for _ in range(1500)]


@pytest.fixture(scope="module")
def pieces(texts):
    pytest.importorskip("sentencepiece")
    return word_pieces(texts, 64)


def test_there_are_as_many_ids_as_asked_for_with_the_blank(pieces):
    assert pieces.count == 64 and len(pieces.pieces) == 63


def test_decoding_undoes_encoding(pieces, texts):
    assert all(pieces.decode(pieces.encode(t)) == t for t in texts)
    assert all(LETTERS.decode(LETTERS.encode(t)) == t for t in texts)


def test_no_id_is_the_blank_and_blanks_say_nothing(pieces, texts):
    ids = [k for t in texts for k in pieces.encode(t)]
    assert min(ids) >= 1 and max(ids) < 64
    assert pieces.decode([0, *pieces.encode(texts[0]), 0, 0]) == texts[0]


def test_the_split_is_the_one_sentencepiece_takes(texts):
    sentencepiece = pytest.importorskip("sentencepiece")
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=64,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        character_coverage=1.0,
        normalization_rule_name="identity",
        minloglevel=2,
        num_threads=1,
    )
    judge = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ours = word_pieces(texts, 64)
    assert [ours.encode(t) for t in texts] == [judge.encode(t) for t in texts]


def test_tokens_are_plain_data(pieces, texts):
    again = Tokens.from_json(json.loads(json.dumps(pieces.to_json())))
    assert again == pieces and again.encode(texts[0]) == pieces.encode(texts[0])


def test_learning_repeats(pieces, texts):
    assert word_pieces(texts, 64) == pieces


def test_what_cannot_be_written_is_named(pieces):
    with pytest.raises(TokenError, match="'É'"):
        LETTERS.encode("É")
    with pytest.raises(TokenError, match="zürich"):
        pieces.encode("call zürich")
    with pytest.raises(TokenError, match="below 64"):
        pieces.decode([64])


def test_too_few_texts_are_refused():
    pytest.importorskip("sentencepiece")
    with pytest.raises(TokenError, match="cannot learn 64"):
        word_pieces(["a b"], 64)


@pytest.mark.parametrize("bad", [([], []), (["a", "a"], []), (["a", ""], []), (["a"], [0.1, 0.2])])
def test_pieces_must_be_distinct_and_scored_alike(bad):
    with pytest.raises(TokenError):
        Tokens(*bad)
