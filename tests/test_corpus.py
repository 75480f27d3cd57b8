"""The corpus: bytes depend on recipe, split and index alone; what is damaged is made again or refused."""
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from attrs import evolve

from nnac.speech import espeak
from nnac.speech.acoustics import Conditions
from nnac.speech.audio import load_audio, read_manifest
from nnac.speech.corpus import CorpusError, CorpusSpec, Recipe, build, load_split, shard_path, train_sentence
from nnac.speech.features import log_mel
from nnac.speech.home import sentences
from nnac.speech.sentences import NAMES, THINGS, held_out, sentence

pytest.importorskip("espeakng_loader")
SMALL = CorpusSpec(train=60, dev=5, sent=5, voice=5, wavs=3)      # train: two shards


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    return directory, build(directory, SMALL, workers=1, quiet=True)


def checksums(summary):
    return {split: s["sha256"] for split, s in summary.items()}


def test_any_number_of_workers_and_of_utterances_gives_the_same_bytes(corpus, tmp_path):
    directory, summary = corpus
    assert checksums(build(tmp_path / "a", SMALL, workers=3, quiet=True)) == checksums(summary)
    build(tmp_path / "b", CorpusSpec(train=2, dev=0, sent=0, voice=3, wavs=0), workers=2, quiet=True)
    for split, count in (("train", 2), ("voice", 3)):
        few, many = load_split(tmp_path / "b", split), load_split(directory, split)
        assert few.texts == many.texts[:count]
        assert all(np.array_equal(x, y) for x, y in zip(few.features, many.features, strict=False))
    assert (tmp_path / "a/wav/voice-0001.wav").read_bytes() == (directory / "wav/voice-0001.wav").read_bytes()


def test_the_text_of_training_begins_with_what_the_split_says(corpus):
    assert load_split(corpus[0], "train").texts == [train_sentence(1, i) for i in range(60)]


def test_another_seed_gives_another_corpus(corpus, tmp_path):
    build(tmp_path, CorpusSpec(Recipe(seed=2), train=3, dev=0, sent=0, voice=0, wavs=0), quiet=True)
    assert load_split(tmp_path, "train").texts != load_split(corpus[0], "train").texts[:3]


def test_killed_half_way_it_resumes_to_the_same_bytes(corpus, tmp_path):
    program = ("import sys; from nnac.speech.corpus import *; "
               "build(sys.argv[1], CorpusSpec(train=60, dev=5, sent=5, voice=5, wavs=3), workers=1, quiet=True)")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    first = shard_path(tmp_path, "train", 0)
    while not first.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists() and not (tmp_path / "train.json").exists()
    made = first.stat().st_mtime_ns, first.stat().st_ino
    kept = tmp_path / "kept"
    shutil.copy2(first, kept)
    assert checksums(build(tmp_path, SMALL, workers=2, quiet=True)) == checksums(corpus[1])
    assert made[0] == kept.stat().st_mtime_ns and not first.exists(), "whole shards are used, then tidied away"


def test_a_broken_shard_is_made_again(corpus, tmp_path):
    path = shard_path(tmp_path, "sent", 0)
    path.parent.mkdir()
    path.write_bytes(b"not a shard")
    assert checksums(build(tmp_path, SMALL, workers=2, quiet=True)) == checksums(corpus[1])


def test_a_finished_corpus_is_not_made_again(corpus):
    directory, summary = corpus
    before = (directory / "train.features.npy").stat().st_mtime_ns
    assert build(directory, SMALL, quiet=True) == summary
    assert (directory / "train.features.npy").stat().st_mtime_ns == before


def test_a_directory_of_another_recipe_is_refused(corpus):
    with pytest.raises(CorpusError, match="another recipe"):
        build(corpus[0], CorpusSpec(Recipe(conditions=Conditions(snr_low=0.0))), quiet=True)


def test_test_sentences_and_test_voices_are_never_in_train(corpus):
    train, sent, voice, dev = (load_split(corpus[0], s) for s in ("train", "sent", "voice", "dev"))
    assert not any(map(held_out, train.texts))
    assert all(map(held_out, sent.texts + voice.texts + dev.texts))
    assert not {v.split("+")[1] for v in voice.voices} & set(espeak.VARIANTS)
    assert {v.split("+")[1] for v in train.voices + sent.voices + dev.voices} <= set(espeak.VARIANTS)


def test_the_wav_files_are_the_features(corpus):
    directory, _ = corpus
    for split in ("sent", "voice"):
        stored = load_split(directory, split)
        rows = read_manifest(directory / f"{split}.jsonl")
        assert [r.text for r in rows] == stored.texts[:3]
        for row, features, seconds in zip(rows, stored.features, stored.seconds, strict=False):
            x = load_audio(row.audio)
            assert len(x) / 16000 == pytest.approx(seconds, abs=1e-3) and row.duration == seconds
            assert np.array_equal(log_mel(x).astype(np.float16), features)


def test_every_voice_speaks_and_no_two_alike():
    engine = espeak.Espeak()
    spoken: dict[bytes, str] = {}
    voices = [f"{espeak.ACCENTS[0]}+{v}" for v in espeak.VARIANTS + espeak.NEW_VARIANTS] + [*espeak.ACCENTS,
        *espeak.NEW_ACCENTS]
    for voice in voices:
        samples = engine.speak("turn off the light", voice)
        assert len(samples) > 5000 and np.abs(samples.astype(int)).max() > 1000, voice
        assert samples.tobytes() not in spoken, f"{voice} speaks as {spoken.get(samples.tobytes())}"
        spoken[samples.tobytes()] = voice


def test_a_sentence_is_the_same_whatever_was_spoken_before():
    engine = espeak.Espeak()
    alone = engine.speak("call tim and mary", "gmw/en+f2")      # a breathy voice: it draws random numbers
    engine.speak("what is seven times nine", "gmw/en-US+klatt4")
    assert np.array_equal(engine.speak("call tim and mary", "gmw/en+f2"), alone)


def test_an_unknown_accent_is_an_error():
    with pytest.raises(espeak.EspeakError, match="nowhere"):
        espeak.Espeak().speak("hello", "gmw/en-nowhere")


def test_sentences_are_of_small_letters_and_one_in_eight_is_held_out():
    r = np.random.default_rng(5)
    texts = {sentence(r) for _ in range(4000)}
    assert all(set(t) <= set("abcdefghijklmnopqrstuvwxyz ") and t == " ".join(t.split()) for t in texts)
    assert 0.10 < sum(map(held_out, texts)) / len(texts) < 0.15


@pytest.mark.parametrize("damage, words", [
    (lambda d: (d / "dev.json").unlink(), "no split 'dev'"), (lambda d: (d / "dev.features.npy").unlink(),
                                                              "no split 'dev'"),
    (lambda d: (d / "dev.json").write_text("{"), "not a corpus index"),
    (lambda d: (d / "dev.json").write_text(json.dumps({"version": 99})), "version 99"),
    (lambda d: (d / "dev.features.npy").write_bytes((d / "dev.features.npy").read_bytes()[:-2]), "damaged"),
    (lambda d: (d / "dev.features.npy").write_bytes((d / "dev.features.npy").read_bytes()[:-2] + b"zz"),
     "differs from its index")])
def test_a_damaged_corpus_is_refused_in_one_line(corpus, tmp_path, damage, words):
    for name in ("dev.json", "dev.features.npy"):
        shutil.copy(corpus[0] / name, tmp_path)
    damage(tmp_path)
    with pytest.raises(CorpusError, match=words) as error:
        load_split(tmp_path, "dev")
    assert "\n" not in str(error.value)


def test_harder_noise_is_another_split_of_the_same_recipe(corpus, tmp_path):
    """Of a corpus that is there, nothing is made anew; its sentences are none of train's; quiet frames are louder."""
    directory, made = corpus
    shutil.copytree(directory, tmp_path / "c")
    more = build(tmp_path / "c", evolve(SMALL, noise=12), workers=1, quiet=True)
    assert {k: v for k, v in more.items() if k != "noise"} == made and more["noise"]["utterances"] == 12
    noise, easy = load_split(tmp_path / "c", "noise"), load_split(tmp_path / "c", "sent")
    assert all(map(held_out, noise.texts)) and noise.recipe == easy.recipe

    def depth(split):
        """How far the quietest tenth of the frames lies below the loudest, in nats; of the middle utterance."""
        energies = [np.sort(f.astype(np.float32).mean(1)) for f in split.features]
        return np.median([e[-len(e) // 10:].mean() - e[: len(e) // 10].mean() for e in energies])

    assert depth(noise) < depth(easy) - 1


def test_a_household_is_a_domain_of_its_own_that_no_other_sentence_reaches(tmp_path):
    spec = CorpusSpec(train=0, dev=0, sent=0, voice=0, wavs=1, home_dev=3, home=5, text=300)
    made = build(tmp_path, spec, workers=1, quiet=True)
    assert {k: v["utterances"] for k, v in made.items()} == {"home_dev": 3, "home": 5}
    assert len((tmp_path / "train.txt").read_text().splitlines()) == 300
    test, dev = load_split(tmp_path, "home"), load_split(tmp_path, "home_dev")
    text = (tmp_path / "home.txt").read_text().splitlines()
    assert len(text) == 300 and not any(map(held_out, text)), "what the language model reads, no test says"
    assert all(map(held_out, [*test.texts, *dev.texts])) and not set(test.texts) & set(dev.texts)
    assert test.texts == sentences("home", 1, 9)[:5], "the n-th sentence is the same however many there are"
    listed = read_manifest(tmp_path / "home.jsonl")
    assert len(listed) == 5, "all of it as audio"
    for u, end, seconds in zip(listed, test.speech_ends, test.seconds, strict=True):
        assert u.speech_end == end and 0.3 < end < seconds - 0.08, "a pause of 0.1 s or more follows the last word"
    assert build(tmp_path, spec, quiet=True) == made


def test_a_household_says_lists_mostly_and_some_words_far_more_often():
    said = sentences("text", 1, 4000)
    lists = [s for s in said if s.startswith("dial ") or set(s.split()) <= set(NAMES) or set(s.split()) <= set(THINGS)]
    assert 0.70 < len(lists) / len(said) < 0.75, "35 + 25 + 12 %, and shapes that happen to look like it"
    names = Counter(w for s in said for w in s.split() if w in NAMES)
    assert len(names) == 14 and names.most_common(1)[0][1] > 10 * min(names.values()), "Zipf's law"
    many = sentences("home", 1, 520)
    assert len(set(many)) == 520 and not set(many) & set(sentences("home_dev", 1, 200)) and not set(many) & set(said)
