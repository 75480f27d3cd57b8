"""Audio files and manifests: what is right is read, what is wrong is said in one line."""

import json
import struct
import wave

import numpy as np
import pytest

from benchmarks.small import make
from nnac.cli import main
from nnac.speech.audio import AudioError, Utterance, audio_blocks, load_audio, read_manifest, write_manifest, write_wav


def write(path, samples, rate=16000, width=2, channels=1):
    with wave.open(str(path), "wb") as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        f.writeframes(samples)
    return path


def fmt(kind, channels, width, rate=16000, order="<", extensible=False):
    """The content of a `fmt ` chunk."""
    tag, block = 0xFFFE if extensible else kind, width * channels & 0xFFFF
    first = struct.pack(order + "HHIIHH", tag, channels, rate, rate * width * channels, block, 8 * width)
    return first + (struct.pack(order + "HHIH", 22, 8 * width, 0, kind) + bytes.fromhex("000000001000800000aa00389b71")
                    if extensible else b"")


def riff(form, data, order="<", name=b"RIFF", before=b"", after=b"", size=None, whole=None):
    """A WAV file of a format and the bytes of its samples, with chunks ``before`` and ``after`` them; ``size``,
    ``whole``: what its headers claim."""
    chunk = b"" if form is None else b"fmt " + struct.pack(order + "I", len(form)) + form
    body = b"WAVE" + chunk + before + b"data" + struct.pack(order + "I", len(data) if size is None
                                                            else size) + data + after
    return name + struct.pack(order + "I", len(body) if whole is None else whole) + body


def tone(rate, seconds=0.5, frequency=440.0):
    return (12000 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


def test_samples_come_back_exactly(tmp_path):
    x = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)
    write_wav(tmp_path / "x.wav", x)
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


BAD = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "not a WAV file": (lambda p: p.write_bytes(b"hello, this is not audio at all, really not"), "not a WAV file"),
    "header cut short": (lambda p: p.write_bytes(b"RIFF\x10\0\0\0WA"), "WAV"),
    "data cut short": (truncated, "cut short: the header promises 8000 samples"),
    "1 Hz": (lambda p: write(p, tone(16000).tobytes(), rate=1), "a sample rate of 1 Hz"),
    "5 MHz": (lambda p: write(p, tone(16000).tobytes(), rate=5_000_000), "5000000 Hz"),
    "not a number": (lambda p: p.write_bytes(riff(fmt(3, 1, 4), np.float32([0, np.nan]).tobytes())), "sample 1 is nan"),
    "beyond sense": (lambda p: p.write_bytes(riff(fmt(3, 2, 8), np.float64([0, 0, 0, 1e200]).tobytes())),
                     "sample 1 is 1e+200"),
    "no channels": (lambda p: p.write_bytes(riff(fmt(1, 0, 2), bytes(8))), "no channels"),
    "48 bits": (lambda p: p.write_bytes(riff(fmt(1, 1, 6), bytes(12))), "48 bits"),
    "no format": (lambda p: p.write_bytes(riff(None, bytes(8))), "no `fmt ` chunk"),
    "a chunk too long": (lambda p: p.write_bytes(riff(fmt(1, 1, 2), bytes(8), before=b"LIST" +
                                                      struct.pack("<I", 10**6))), "cut short within"),
    "no data": (lambda p: p.write_bytes(riff(fmt(1, 1, 2), b"")[:-8]), "no `data` chunk"),
    "coded": (lambda p: p.write_bytes(riff(fmt(0x161, 1, 2), bytes(64))), "WMA"),
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
    assert read == [Utterance(str(tmp_path / "wav/a.wav"), "turn on the light", 1.5),
                    Utterance("/elsewhere/b.wav", "call tim")]


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
    assert np.array_equal(load_audio(tmp_path / "x.wav") * 32768, x)


# ------------------------------------------------------------------------------------------------ every container

X = np.random.default_rng(3).uniform(-1, 1, (501, 2))


def integers(width, order="<"):
    """X as integers of ``width`` bytes, and what they mean."""
    top = 2 ** (8 * width - 1)
    k = np.clip(np.rint(X * top), -top, top - 1).astype(np.int64)
    if width == 1:
        return (k + 128).astype(np.uint8).tobytes(), k / top
    raw = k.astype(order + "i8").tobytes()
    words = np.frombuffer(raw, np.uint8).reshape(-1, 8)
    return (words[:, :width] if order == "<" else words[:, 8 - width:]).tobytes(), k / top


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extensible", [False, True])
def test_integers_of_every_width_are_read_exactly(tmp_path, width, order, extensible):
    data, expected = integers(width, order)
    (tmp_path / "x.wav").write_bytes(riff(fmt(1, 2, width, order=order, extensible=extensible), data, order, b"RIFF"
                                          if order == "<" else b"RIFX"))
    assert np.array_equal(load_audio(tmp_path / "x.wav"), expected.mean(1).astype(np.float32))


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("extensible", [False, True])
def test_floating_point_is_read_exactly(tmp_path, kind, extensible):
    (tmp_path / "x.wav").write_bytes(riff(fmt(3, 2, int(kind[1]), extensible=extensible),
                                          X.astype("<" + kind).tobytes()))
    assert np.array_equal(load_audio(tmp_path / "x.wav"), X.astype(kind).astype(np.float64).mean(1).astype(np.float32))


SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_two_libraries_read_the_same(tmp_path, container, subtype):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "x.wav", X, 16000, format=container, subtype=subtype)
    theirs, rate = soundfile.read(tmp_path / "x.wav", always_2d=True)
    assert rate == 16000 and np.array_equal(load_audio(tmp_path / "x.wav"), theirs.mean(1).astype(np.float32))


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "W64"])
def test_other_formats_come_through_a_library(tmp_path, form):
    soundfile = pytest.importorskip("soundfile")
    x = np.stack([tone(16000, 1.0), tone(16000, 1.0)], 1) / 32768
    soundfile.write(tmp_path / "x", x, 16000, format=form)
    theirs = soundfile.read(tmp_path / "x", always_2d=True)[0].mean(1).astype(np.float32)
    # libmpg123 gives other last bits after a seek, which `soundfile.read` begins with
    assert np.allclose(load_audio(tmp_path / "x"), theirs, rtol=0, atol=1e-6 if form == "MP3"
                       else 0) and len(theirs) >= 16000


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3", "AIFF"])
def test_a_cut_file_of_another_format_is_one_line_or_what_is_there(tmp_path, form):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "x", tone(16000, 1.0) / 32768, 16000, format=form)
    whole = (tmp_path / "x").read_bytes()
    for size in range(1, len(whole), len(whole) // 40):
        (tmp_path / "cut").write_bytes(whole[:size])
        try:
            assert len(load_audio(tmp_path / "cut")) <= 17000
        except AudioError as error:
            assert "\n" not in str(error)


def test_without_the_library_the_line_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "soundfile", None)
    for start in (b"fLaC", b"OggS", b"ID3", b"\xff\xfb\x90\x00", b"FORM"):
        (tmp_path / "x").write_bytes(start + bytes(64))
        with pytest.raises(AudioError, match=r"pip install 'nnac\[audio\]'"):
            load_audio(tmp_path / "x")
    (tmp_path / "x.wav").write_bytes(riff(fmt(2, 1, 1), bytes(64)))
    with pytest.raises(AudioError, match="ADPCM"):
        load_audio(tmp_path / "x.wav")


UNKNOWN = {"ffmpeg": (0xFFFFFFFF, 0xFFFFFFFF), "sox": (0x7FFFFFFF - 36, 0x7FFFF000 + 36),
           "mplayer": (0x7FFFF000, 0x7FFFF024),
           "arecord": (0x80000000, 0x80000024),
           "gstreamer": (0, 36), "no size at all": (0, 0)}


@pytest.mark.parametrize("writer", UNKNOWN)
def test_headers_of_streams_mean_to_the_end(tmp_path, writer):
    size, whole = UNKNOWN[writer]
    x = tone(16000, 0.1)
    (tmp_path / "x.wav").write_bytes(riff(fmt(1, 1, 2), x.tobytes(), size=size, whole=whole))
    assert np.array_equal(load_audio(tmp_path / "x.wav") * 32768, x)


@pytest.mark.parametrize("chunk", [b"LIST\x04\0\0\0abcd", b"LIST\x05\0\0\0abcde\0", b"LIST\x05\0\0\0abcde",
                                   b"fact\x04\0\0\0\0\0\0\0",
                                   b"JUNK\x01\0\0\0xy", b"bext\x03\0\0\0abc", b"xyzw\0\0\0\0", b"PAD \x01\0\0\0d"],
                         ids=lambda c: c[:4].decode() + str(len(c)))
def test_stray_chunks_before_and_after_are_passed_by(tmp_path, chunk):
    x = tone(16000, 0.1)
    for before, after in ((chunk, b""), (b"", chunk), (chunk + b"", chunk), (b"", chunk[:-1])):
        (tmp_path / "x.wav").write_bytes(riff(fmt(1, 1, 2), x.tobytes(), before=before, after=after))
        assert np.array_equal(load_audio(tmp_path / "x.wav") * 32768, x), (before, after)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 879, 880, 1519, 1520, 5000])
def test_short_audio_is_heard_alike_by_everybody(tmp_path, small, samples, capsys):
    write_wav(tmp_path / "short.wav", np.random.default_rng(samples).integers(-9000, 9000, samples).astype(np.int16))
    write_wav(tmp_path / "long.wav", np.random.default_rng(7).integers(-9000, 9000, 9000).astype(np.int16))
    for files in (["short.wav"], ["short.wav", "long.wav"]):
        audio = [w for f in files for w in ("--audio", str(tmp_path / f))]
        assert main(["run", str(small.program), "--json", *audio]) == 0
        assert main(["compare", str(small.checkpoint), str(small.program), "--json", *audio]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["different_integers"] == 0


def test_hours_beside_seconds_are_batches_of_their_own():
    from nnac.decode.front_end import by_length

    lengths = [360_000, 100, 100, 30_000, 200]
    assert by_length(lengths, 16) == [[0], [3, 4, 1, 2]]


def test_a_file_without_samples_is_an_utterance_without_words(tmp_path):
    write(tmp_path / "x.wav", b"")
    assert len(load_audio(tmp_path / "x.wav")) == 0


def test_audio_may_come_through_a_pipe(tmp_path):
    import os
    import threading

    x = tone(16000, 3.0)
    os.mkfifo(tmp_path / "pipe")
    data = riff(fmt(1, 1, 2), x.tobytes(), size=0xFFFFFFFF, before=b"LIST\x05\0\0\0abcde")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    writer.start()
    assert np.array_equal(load_audio(tmp_path / "pipe") * 32768, x)
    writer.join()


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_blocks_joined_are_the_whole_resampled_at_once(tmp_path, rate):
    import soxr

    x = np.random.default_rng(rate).integers(-20000, 20000, rate * 20).astype(np.int16)
    write(tmp_path / "x.wav", x.tobytes(), rate)
    assert len(list(audio_blocks(tmp_path / "x.wav"))) > 1 or rate == 8000
    assert np.array_equal(load_audio(tmp_path / "x.wav"), soxr.resample((x / 32768).astype(np.float32), rate, 16000))


def test_an_hour_is_read_in_little_memory(tmp_path):
    import tracemalloc

    with open(tmp_path / "x.wav", "wb") as out:
        out.write(riff(fmt(1, 2, 2, 48000), b"", size=48000 * 4 * 3600, whole=36 + 48000 * 4 * 3600))
        out.truncate(44 + 48000 * 4 * 3600)                        # 691 MB of zeros that take no room
    tracemalloc.start()
    seconds = sum(len(block) for block in audio_blocks(tmp_path / "x.wav", 48000)) / 48000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds == 3600 and peak < 64e6


def test_random_headers_are_read_or_refused_in_one_line(tmp_path):
    r = np.random.default_rng(11)
    whole = bytearray(riff(fmt(1, 2, 2), X.astype("<i2").tobytes(), before=b"LIST\x05\0\0\0abcde",
                           after=b"fact\x04\0\0\0\0\0\0\0"))
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(int(r.integers(1, 4))):
            data[int(r.integers(64))] = int(r.choice([0, 1, 3, 6, 7, 0x7F, 0x80, 0xFE, 0xFF, int(r.integers(256))]))
        (tmp_path / "x.wav").write_bytes(data[:int(r.integers(1, len(data) + 1))] if r.random() < 0.3 else data)
        try:
            assert np.isfinite(load_audio(tmp_path / "x.wav", 48000)).all()
        except AudioError as error:
            assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)


@pytest.mark.parametrize("line", ['{"audio": "a\\u0000b", "text": ""}', '{"audio": "\\ud800", "text": ""}',
                                  '{"audio": "", "text": ""}',
                                  '{"audio": "a", "text": "\\ud800"}', "[" * 100_000,
                                  '{"audio": "a", "text": "x", "duration": 1e999}'], ids=range(6))
def test_a_manifest_line_of_absurd_values_is_named(tmp_path, line):
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(AudioError, match=r"m.jsonl:1: "):
        read_manifest(tmp_path / "m.jsonl")


def test_references_that_no_token_writes_are_said_and_may_be_normalised(tmp_path, small, capsys):
    write_wav(tmp_path / "a.wav", np.random.default_rng(1).integers(-9000, 9000, 16000).astype(np.int16))
    main(["run", str(small.program), "--json", "--audio", str(tmp_path / "a.wav")])
    heard = json.loads(capsys.readouterr().out.splitlines()[0])["text"]
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "text": heard.upper() + "!"}) + "\n")
    main(["run", str(small.program), "--json", "--manifest", str(tmp_path / "m.jsonl")])
    said = capsys.readouterr()
    assert "--normalise" in said.err and json.loads(said.out.splitlines()[-1])["errors"] > 0
    main(["run", str(small.program), "--json", "--normalise", "--manifest", str(tmp_path / "m.jsonl")])
    said = capsys.readouterr()
    assert said.err == "" and json.loads(said.out.splitlines()[-1])["errors"] == 0
