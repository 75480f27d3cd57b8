"""sherpa-onnx itself runs the files that are made for it, and says what the machine's integers say."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed (extra `sherpa`)")
pytest.importorskip("kaldi_native_fbank", reason="sherpa-onnx's features are not installed (extra `sherpa`)")

import kaldi_native_fbank as fbank
import sherpa_onnx
import torch

import nnac
from nnac.cli import main
from nnac.decode.front_end import FrontEnd
from nnac.decode.integer import IntegerStepper
from nnac.decode.search.greedy import transcribe
from nnac.executors.reference import Reference
from nnac.formats import Precision
from nnac.lower import lower
from nnac.model.rnnt import JOINT, PREDICTION
from nnac.onnx import files, sherpa
from nnac.onnx.model import OnnxError
from nnac.onnx.session import Session
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens
from tests.graphs import random_graph
from tests.test_attention import conformer
from tests.test_train_recurrent import model
from tests.test_transducers import POLICY, Encoder, Joint, Stateless, V

RATE = 16000


def features(samples, bins):
    """What sherpa-onnx makes of audio: Kaldi's filter banks, samples in [-1, 1], edges mirrored, no dither."""
    options = fbank.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither, options.frame_opts.snip_edges = RATE, 0.0, False
    options.mel_opts.num_bins, options.mel_opts.high_freq = bins, -400
    made = fbank.OnlineFbank(options)
    made.accept_waveform(RATE, samples.tolist())
    made.input_finished()
    return np.stack([made.get_frame(i) for i in range(made.num_frames_ready)])


def front_end(graph, heard):
    width = graph.values["joint.output"].width
    return FrontEnd(FeatureSpec(bins=graph.values[graph.inputs["encoder"][0]].width), Normalisation.of(heard),
                    Tokens([chr(ord("a") + i) for i in range(width - 1)]))


def audio(seed):
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0.001, 0.3, 40), RATE // 20)
    return (rng.standard_normal(len(loud)) * loud).astype(np.float32)


def recogniser(folder, bins):
    """sherpa-onnx with the files of a folder."""
    parts = {n: str(folder / f"{n}.onnx") for n in files.FILES.values()}
    return sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(folder / "tokens.txt"), feature_dim=bins, sample_rate=RATE, num_threads=1, **parts)


def decoded(host, samples):
    """A stream that has heard the samples, piece by piece."""
    stream = host.create_stream()
    for piece in np.array_split(samples, 7):
        stream.accept_waveform(RATE, piece)
        while host.is_ready(stream):
            host.decode_stream(stream)
    stream.input_finished()
    while host.is_ready(stream):
        host.decode_stream(stream)
    return stream


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 3])
def test_sherpa_onnx_decodes_what_the_integers_decode(labels, steps, tmp_path):
    graph = conformer(labels, stateless=labels)
    bins = graph.values["features"].width
    front = front_end(graph, features(audio(9), bins))
    for name, made in sherpa.recogniser(graph, front, steps).items():
        (tmp_path / f"{name}.onnx").write_bytes(made.SerializeToString())
    (tmp_path / "tokens.txt").write_text(files.tokens_text(front))
    host = recogniser(tmp_path, bins)
    said = set()
    for seed in range(3):
        samples = audio(seed)
        stream = decoded(host, samples)
        heard = front.normalisation.apply(features(samples, bins))
        # a chunk is decoded when there is a frame after it
        call = steps * graph.rate("encoder", "features")
        heard = heard[: (len(heard) - 1) // call * call]
        one_a_frame = transcribe(IntegerStepper(Reference(graph)), heard[:, None], np.array([len(heard)]), 1)[0]
        assert host.tokens(stream) == [front.tokens.pieces[i - 1] for i in one_a_frame]
        said.add(host.get_result(stream))
    assert len(said) > 1 and all(len(s) > 2 for s in said), said


@pytest.mark.parametrize("labels", [1, 2, 4])
def test_the_prediction_of_the_last_labels_is_the_one_after_all_of_them(labels):
    """... also where there were fewer labels than it depends on."""
    graph = conformer(labels, stateless=labels)
    front = front_end(graph, np.random.default_rng(0).standard_normal((9, 8)))
    session = Session.of(sherpa.recogniser(graph, front)["decoder"])
    reference, rng = Reference(graph), np.random.default_rng(labels)
    assert sherpa.context(graph) == labels
    state, before = reference.initial_state(PREDICTION.name, 3), np.full((3, labels), sherpa.NO_LABEL)
    compared = 0
    for step in range(6):
        y = rng.integers(0, graph.values["joint.output"].width, 3) if step else np.zeros(3, np.int64)
        out, state = reference.run(PREDICTION.name, {graph.inputs[PREDICTION.name][0]: y[None, :, None]}, state)
        before = np.concatenate([before[:, 1:], y[:, None]], 1)
        made = session.loaded.run(None, {"y": before})[0]
        assert np.array_equal(made, out["joint.prediction"][0])
        compared += made.size
    assert compared > 200


def test_a_prediction_network_that_knows_all_labels_is_refused_with_what_to_do():
    graph = random_graph(1, size="tiny")
    with pytest.raises(OnnxError, match=r"prediction.lstm\[0\]: `lstm` depends on all labels.*stateless=2"):
        sherpa.check(graph)


def test_another_model_and_an_encoder_that_hears_the_end_are_refused():
    with pytest.raises(OnnxError, match="hears its sequence from the end"):
        sherpa.check(random_graph(1, size="tiny", bidirectional=True))
    with pytest.raises(OnnxError, match="runs transducers"):
        sherpa.check(lower(model("lstm"), lambda path: Precision()))


def test_the_joiner_gives_the_machines_logits():
    graph = conformer(5, stateless=2)
    front = front_end(graph, np.random.default_rng(0).standard_normal((9, 8)))
    session = Session.of(sherpa.recogniser(graph, front)["joiner"])
    rng, (left, right) = np.random.default_rng(1), graph.inputs[JOINT.name]
    given = {n: rng.integers(-128, 128, (1, 50, graph.values[n].width)) for n in (left, right)}
    out, _ = Reference(graph).run(JOINT.name, given, {})
    v = graph.values["joint.output"]
    names = {"encoder_out": left, "decoder_out": right}
    made = session.loaded.run(None, {k: given[n][0].astype(np.float32) for k, n in names.items()})[0]
    assert np.array_equal(made, ((out["joint.output"][0] - v.zero_point) * np.float32(v.scale)).astype(np.float32))


def test_a_users_own_transducer_goes_from_pytorch_to_sherpa_onnx(tmp_path, capsys):
    torch.manual_seed(0)
    x, labels = torch.randn(2, 12, 6) * 3 - 6, torch.tensor([[1, 2, 5, 4, 1], [2, 1, 6, 5, 4]])
    made = nnac.prepare_transducer(encoder=Encoder(), prediction=Stateless(), joint=Joint("add", torch.tanh),
                                   policy=POLICY, example=dict(encoder=(x, torch.tensor([12, 12])),
                                                               prediction=(labels,)))
    made.calibrate([(x, torch.tensor([12, 12]), labels)])
    tokens = Tokens([chr(ord("a") + i) for i in range(V - 1)])
    made.save(tmp_path / "m.nnc", FrontEnd(FeatureSpec(bins=6), Normalisation.of(x.reshape(-1, 6).numpy()), tokens))
    assert main(["export", str(tmp_path / "m.nnc"), "--to", "sherpa-onnx", "--out", str(tmp_path / "out")]) == 0
    assert "encoder.onnx" in capsys.readouterr().out
    assert decoded(recogniser(tmp_path / "out", 6), audio(0)) is not None
    made.save(tmp_path / "arrays.nnc")
    assert main(["export", str(tmp_path / "arrays.nnc"), "--to", "sherpa-onnx", "--out", str(tmp_path / "no")]) != 0
    assert "needs features, normalisation and tokens" in capsys.readouterr().err
