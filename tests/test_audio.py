"""Audio files and manifests: what is right is read, what is wrong is said in one line."""

import struct
import wave

import numpy as np
import pytest

from nnac.speech.audio import AudioError, Utterance, load_audio, read_manifest, read_wav, write_manifest, write_wav


def write(path, samples, rate=16000, width=2, channels=1):
    with wave.open(str(path), "wb") as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        f.writeframes(samples)
    return path


def tone(rate, seconds=0.5, frequency=440.0):
    return (12000 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


def test_samples_come_back_exactly(tmp_path):
    x = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)
    write_wav(tmp_path / "x.wav", x)
    samples, rate = read_wav(tmp_path / "x.wav")
    assert rate == 16000 and np.array_equal(samples[:, 0], x)
    assert np.array_equal(load_audio(tmp_path / "x.wav") * 32768, x)


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    stereo = np.stack([tone(16000), np.zeros_like(tone(16000))], 1)
    write_wav(tmp_path / "x.wav", stereo)
    assert np.allclose(load_audio(tmp_path / "x.wav") * 32768, stereo.mean(1))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_other_rates_are_resampled_to_the_same_tone(tmp_path, rate):
    path = write(tmp_path / "x.wav", tone(rate).tobytes(), rate)
    x = load_audio(path)
    assert abs(len(x) - 8000) <= 1
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    assert abs(spectrum.argmax() * 16000 / len(x) - 440) < 3


def truncated(path):
    write(path, tone(16000).tobytes())
    path.write_bytes(path.read_bytes()[:-100])


def floating(path):
    data = np.zeros(100, np.float32).tobytes()
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


BAD = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "no samples": (lambda p: write(p, b""), "holds no samples"),
    "not a WAV file": (lambda p: p.write_bytes(b"hello, this is not audio at all, really not"), "not a WAV file"),
    "header cut short": (lambda p: p.write_bytes(b"RIFF\x10\0\0\0WA"), "WAV"),
    "data cut short": (truncated, "cut short: the header promises 8000 samples"),
    "8 bit": (lambda p: write(p, bytes(100), width=1), "8-bit samples"),
    "24 bit": (lambda p: write(p, bytes(300), width=3), "24-bit samples"),
    "float": (floating, "floating-point samples"),
    "folder": (lambda p: p.mkdir(), "folder"),
    "absent": (lambda p: None, "no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_in_one_line(tmp_path, name):
    make, words = BAD[name]
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(AudioError) as error:
        load_audio(path)
    message = str(error.value)
    assert message.startswith(str(path)) and words in message and "\n" not in message


def test_every_cut_of_a_file_is_an_audio_error_or_whole(tmp_path):
    write(tmp_path / "x.wav", tone(16000, 0.01).tobytes())
    whole = (tmp_path / "x.wav").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut.wav").write_bytes(whole[:size])
        with pytest.raises(AudioError):
            load_audio(tmp_path / "cut.wav")


def test_write_wav_takes_only_int16(tmp_path):
    with pytest.raises(ValueError, match="int16"):
        write_wav(tmp_path / "x.wav", np.zeros(10, np.float32))


def test_a_manifest_comes_back_with_paths_that_open(tmp_path):
    rows = [Utterance("wav/a.wav", "turn on the light", 1.5), Utterance("/elsewhere/b.wav", "call tim")]
    write_manifest(tmp_path / "m.jsonl", rows)
    read = read_manifest(tmp_path / "m.jsonl")
    assert read == [Utterance(str(tmp_path / "wav/a.wav"), "turn on the light", 1.5), Utterance("/elsewhere/b.wav", "call tim")]


@pytest.mark.parametrize(
    "line, words",
    [
        ("{not json", "not JSON"),
        ("[1]", "expected an object"),
        ('{"text": "x"}', "`audio` is missing"),
        ('{"audio": "a.wav"}', "`text` is missing"),
        ('{"audio": 3, "text": "x"}', "`audio` is not a text"),
        ('{"audio": "a", "text": "x", "duration": "long"}', "`duration`"),
        ('{"audio": "a", "text": "x", "duration": true}', "`duration`"),
    ],
)
def test_a_bad_manifest_line_is_named(tmp_path, line, words):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav", "text": "fine"}\n\n' + line + "\n")
    with pytest.raises(AudioError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:3: ") and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("data, words", [(b"", "lists no utterances"), (b"\xff\xfe\x00", "not a text file")])
def test_a_manifest_that_is_none_is_refused(tmp_path, data, words):
    (tmp_path / "m.jsonl").write_bytes(data)
    with pytest.raises(AudioError, match=words):
        read_manifest(tmp_path / "m.jsonl")


def test_the_extensible_header_that_recorders_write_is_plain_pcm_too(tmp_path):
    x = tone(16000)
    plain = struct.pack("<HHIIHH", 0xFFFE, 1, 16000, 32000, 2, 16) + struct.pack("<HHI", 22, 16, 4)
    header = b"fmt " + struct.pack("<I", 40) + plain + bytes.fromhex("0100000000001000800000aa00389b71")
    body = b"WAVE" + header + b"data" + struct.pack("<I", 2 * len(x)) + x.tobytes()
    (tmp_path / "x.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert np.array_equal(read_wav(tmp_path / "x.wav")[0][:, 0], x)
