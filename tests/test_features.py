"""Features: one definition, whatever the chunks."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnac.speech.features import KINDS, FeatureSpec, Normalisation, StreamingLogMel, log_mel


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    r = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    return (0.2 * np.sin(2 * np.pi * 300 * t * (1 + t)) + 0.02 * r.standard_normal(samples)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4000), st.lists(st.integers(0, 900), max_size=12), st.integers(0, 1000))
def test_any_chunks_give_the_frames_of_the_whole_bit_for_bit(samples, sizes, seed):
    x = speech_like(samples, seed)
    stream, parts, at = StreamingLogMel(), [], 0
    for size in [*sizes, samples]:
        parts.append(stream.feed(x[at: at + size]))
        at += size
    assert np.array_equal(np.concatenate(parts), log_mel(x))


def test_chunks_give_the_whole_where_frames_have_gaps_between_them():
    spec, x = FeatureSpec(window=200, hop=333), speech_like(5000)
    stream = StreamingLogMel(spec)
    assert np.array_equal(np.concatenate([stream.feed(x[k: k + 100]) for k in range(0, 5000, 100)]), log_mel(x, spec))


def test_a_frame_alone_equals_the_frame_among_others():
    x, spec = speech_like(8000), FeatureSpec()
    whole = log_mel(x)
    emphasised_alone = log_mel(x[: spec.window])
    assert np.array_equal(whole[0], emphasised_alone[0])
    assert len(whole) == spec.frames(8000) == 48


@pytest.mark.parametrize("samples, frames", [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_a_frame_exists_once_all_its_samples_do(samples, frames):
    assert log_mel(speech_like(samples)).shape == (frames, 40)


def test_features_are_the_plain_spelling_of_log_mel():
    # the textbook way: dense triangles and a matrix product
    x, spec = speech_like(2000), FeatureSpec()
    mel = lambda f: 1127 * np.log(1 + f / 700)      # noqa: E731
    edges = np.linspace(mel(20), mel(7600), 42)
    at = mel(np.arange(257) * 16000 / 512)
    bank = np.stack([np.interp(at, edges[m: m + 3], [0, 1, 0], 0, 0) for m in range(40)], 1)
    y = np.append(x[0], x[1:].astype(float) - 0.97 * x[:-1].astype(float))
    frames = np.stack([y[k: k + 400] * np.hanning(400) for k in range(0, 1601, 160)])
    expected = np.log(np.abs(np.fft.rfft(frames, 512)) ** 2 @ bank + 1e-7)
    assert np.allclose(log_mel(x), expected, atol=1e-5)
    assert spec.bins == 40


def test_a_tone_lights_the_bin_of_its_frequency():
    t = np.arange(16000) / 16000
    loudest = [int(log_mel(np.sin(2 * np.pi * f * t).astype(np.float32) * 0.5).mean(0).argmax())
               for f in (200, 1000, 3000, 6000)]
    assert loudest == sorted(loudest) and len(set(loudest)) == 4


def test_silence_is_the_floor():
    assert np.allclose(log_mel(np.zeros(1000, np.float32)), np.log(1e-7))


def test_two_channels_are_refused():
    with pytest.raises(ValueError, match="one channel"):
        log_mel(np.zeros((100, 2), np.float32))


@pytest.mark.parametrize("bad", [dict(window=600), dict(high=9000.0), dict(low=8000.0), dict(bins=0)])
def test_a_specification_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError):
        FeatureSpec(**bad)


def test_more_filters_than_the_transform_resolves_are_refused():
    with pytest.raises(ValueError, match="use fewer bins"):
        log_mel(speech_like(1000), FeatureSpec(bins=128))


def test_normalisation_survives_json_exactly():
    import json
    n = Normalisation.of(np.random.default_rng(0).normal(3, 2, (500, 40)))
    again = Normalisation.from_json(json.loads(json.dumps(n.to_json())))
    assert np.array_equal(n.mean, again.mean) and np.array_equal(n.deviation, again.deviation)
    x = np.random.default_rng(1).normal(3, 2, (200, 40)).astype(np.float32)
    assert np.abs(n.apply(x).mean()) < 0.1 and abs(n.apply(x).std() - 1) < 0.1


def test_normalisation_refuses_a_deviation_of_zero():
    with pytest.raises(ValueError, match="positive"):
        Normalisation([0.0], [0.0])


def kaldis(x: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """kaldi-native-fbank's, of frames that begin with the audio."""
    fbank = pytest.importorskip("kaldi_native_fbank", reason="the extra `sherpa` is not installed")
    options = fbank.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither, options.frame_opts.snip_edges = spec.rate, 0.0, True
    options.mel_opts.num_bins, options.mel_opts.high_freq = spec.bins, -400
    made = fbank.OnlineFbank(options)
    made.accept_waveform(spec.rate, x.tolist())
    made.input_finished()
    return np.stack([made.get_frame(i) for i in range(made.num_frames_ready)])


@pytest.mark.parametrize("rate,bins", [(16000, 80), (16000, 40), (8000, 23)])
@pytest.mark.parametrize("loudness", [1.0, 1e-4])
def test_kaldis_filter_banks_are_those_of_kaldi(rate, bins, loudness):
    spec = FeatureSpec.kaldi(bins, rate)
    x = (speech_like(2 * rate) + np.float32(0.05)) * np.float32(loudness)          # with a constant, which is taken off
    ours, theirs = log_mel(x, spec), kaldis(x, spec)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-3 and np.abs(ours - theirs).mean() < 5e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4000), st.lists(st.integers(0, 900), max_size=12), st.integers(0, 1000))
def test_kaldis_frames_do_not_depend_on_chunks(samples, sizes, seed):
    x, spec = speech_like(samples, seed), FeatureSpec.kaldi(40)
    stream, parts, at = StreamingLogMel(spec), [], 0
    for size in [*sizes, samples]:
        parts.append(stream.feed(x[at: at + size]))
        at += size
    assert np.array_equal(np.concatenate(parts), log_mel(x, spec))


def test_a_specification_says_its_kind_and_older_files_are_log_mel():
    assert "kind" not in FeatureSpec().to_json()
    assert FeatureSpec.from_json(FeatureSpec.kaldi(80).to_json()) == FeatureSpec.kaldi(80) != FeatureSpec(bins=80)
    with pytest.raises(ValueError, match="kind"):
        FeatureSpec(kind="mfcc")


def test_the_command_offers_every_kind_of_features(capsys):
    from nnac.cli import main

    with pytest.raises(SystemExit):
        main(["corpus", "--out", "x", "--features", "mfcc"])
    said = capsys.readouterr().err
    assert all(kind in said for kind in KINDS)
