"""The language model: the second family.  Built, linted, trained, compiled, emulated; its names are nobody else's
business."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from nnac import checkpoint
from nnac.cli import main
from nnac.compiler import trained
from nnac.emulator.executor import Emulator
from nnac.evaluate import evaluate
from nnac.lower import lower_plan
from nnac.model import ModelError, build
from nnac.model.lm_torch import LanguageNetwork, LmConfig, cross_entropy, from_edge, to_edge
from nnac.policy import loads
from nnac.program import Program
from nnac.schedule.compile import Settings, compile_graph
from nnac.train.families import module_of
from nnac.train.families.lm import LanguageModel
from nnac.train.language import load_float, perplexity
from nnac.train.module import FloatWeightsError
from nnac.train.processes import TrainingError
from nnac.train.schedule import Compression
from nnac.train.sentences import Sentences, divided, read_sentences

POLICY = """
import "targets/edge.nnac"
policy p {{
  model lm(size="tiny"{shape})
  target edge
  layers ** {{ weights {weights}; activations int8 minmax }}
  layers lm.output {{ activations int16 fixed(16) }}
  training {{ steps 60 steps }}
}}
"""


def made(shape="", weights="int8", seed=0):
    """(plan, float network, its module, labels [U, B]), calibrated on the labels."""
    torch.manual_seed(seed)
    plan = loads(POLICY.format(shape=shape, weights=weights)).plan
    network = LanguageNetwork(LmConfig.of(plan.model.arguments)).eval()
    module = module_of(plan.model.builder)(lower_plan(plan), network.state_dict(), plan)
    labels = torch.randint(1, 12, (9, 5))
    module.calibrate([(labels,)])
    return plan, network, module, labels


SHAPES = ["", ", layers=2, project=8", ", tied=true, embedding=16",
          ", cells=24, project=12, embedding=12, tied=true, layers=3"]


@pytest.mark.parametrize("shape", SHAPES)
def test_module_reference_and_emulator_agree_in_every_integer(shape):
    plan, _, module, labels = made(shape)
    seen = {}
    with module.eval().watching(seen.__setitem__), torch.no_grad():
        module(labels)
    graph = module.bind()
    inputs = dict(label=from_edge(labels)[..., None].numpy())
    expected = {}
    out, end = evaluate(graph, "lm", inputs, watch=expected.__setitem__)
    assert expected.keys() == seen.keys() and all(np.array_equal(expected[k], seen[k].numpy()) for k in expected)
    emulator = Emulator(compile_graph(graph, plan.target, Settings.of(plan)))
    got, after = emulator.run("lm", inputs, emulator.initial_state("lm", labels.shape[1]))
    assert np.array_equal(got["lm.scores"], out["lm.scores"]) and all(np.array_equal(after[k], end[k]) for k in end)


@pytest.mark.parametrize("shape", SHAPES)
def test_real_numbers_are_those_of_the_float_network(shape):
    _, network, module, labels = made(shape)
    with module.real_numbers(), torch.no_grad():
        assert torch.allclose(module(labels), network(labels), atol=1e-5)


def test_labels_one_by_one_score_as_the_sentence_does():
    _, _, module, labels = made()
    module.eval()
    with torch.no_grad():
        whole, state = module(labels), module.start(labels.shape[1])
        steps = torch.cat([module.scores(row[None], state) for row in from_edge(labels)])
    assert torch.equal(whole, steps)


def test_cross_entropy_counts_each_label_and_the_end():
    scores = torch.log_softmax(torch.arange(24.0).reshape(3, 2, 4) % 7, -1)
    labels, counts = torch.tensor([[1, 3], [2, 0]]), torch.tensor([2, 1])
    assert to_edge(labels, counts).tolist() == [[1, 3], [2, 0], [0, 0]]
    by_hand = [-(scores[0, 0, 1] + scores[1, 0, 2] + scores[2, 0, 0]), -(scores[0, 1, 3] + scores[1, 1, 0])]
    assert torch.allclose(cross_entropy(scores, labels, counts), torch.stack(by_hand))
    padded = nn.functional.nll_loss(scores[:, 0], torch.tensor([1, 2, 0]), reduction="sum")
    assert torch.allclose(cross_entropy(scores, labels, counts)[0], padded)


def test_training_lowers_the_loss_and_ends_in_the_integers_of_the_reference():
    _, _, module, labels = made(weights="gq(4)")
    labels = torch.arange(1, 10)[:, None].expand(9, 4) + torch.arange(4)[None] % 2       # each row counts up
    counts = torch.tensor([9, 9, 7, 5])
    compression = Compression(module, steps=60)
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    losses = []
    for step in range(1, 61):
        optimiser.zero_grad()
        loss = module.loss(module(labels), labels, counts)
        loss.backward()
        optimiser.step()
        compression.on_step(step)
        losses.append(float(loss.detach()))
    compression.finish()
    module.eval()
    with torch.no_grad():
        scores = module(labels)
    assert losses[-1] < 0.3 * losses[0]
    out, _ = evaluate(module.bind(), "lm", dict(label=from_edge(labels)[..., None].numpy()))
    assert np.array_equal(np.float32(out["lm.scores"] * module.formats()["lm.scores"].scale), scores.numpy())


def test_tied_weights_stay_one_parameter():
    _, network, module, labels = made(", tied=true, embedding=16")
    assert module.layer("lm.output").weight is module.layer("lm.embedding").weight
    assert network.lm.output.weight is network.lm.embedding.weight
    module.loss(module(labels), labels, torch.full((5,), 9)).backward()
    assert module.layer("lm.embedding").weight.grad.abs().sum() > 0
    weights = network.state_dict()
    weights["lm.output.weight"] = weights["lm.output.weight"] + 1
    with pytest.raises(FloatWeightsError, match="tied to its embedding, and these two differ"):
        LanguageModel(module.graph, weights, module.plan)
    again = LanguageModel(module.graph, None, module.plan)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again.eval()(labels),
                       module.eval()(labels)) and again.layer("lm.output").weight is again.layer("lm.embedding").weight


@pytest.mark.parametrize("arguments, message", [
    (dict(size="huge"), "no language model's size is called `huge`"),
    (dict(tied=True), "as wide as what the last LSTM returns: 64 is not 256"),
    (dict(layers=0), "`layers` of a language model is a whole number from 1"),
                                                (dict(tied=1), "`tied` of a language model is true or false"),
    (dict(vocabulary=1), "`vocabulary` of a language model is a whole number from 2"),
                                                (dict(cells=True), "`cells` of a language model")], ids=str)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ModelError, match=message):
        build("lm", **arguments)


def test_sizes():
    assert {size: build("lm", size=size).weights for size in ("tiny", "small", "large")} == dict(
        tiny=12 * 8 + 64 * (8 + 16) + 12 * 16, small=64 * 64 + 1024 * (64 + 256) + 64 * 256,
        large=2 * 1024 * 512 + 2 * (8192 * (512 + 512) + 512 * 2048))


# ------------------------------------------------------------------------------------------------------------ from text

TEXT_POLICY = """
import "targets/edge.nnac"
policy text {
  model lm(size="small", vocabulary=12, cells=16)
  target edge
  layers ** { weights int8 per_channel; activations int8 minmax }
  layers lm.lstm[*].{input, recurrent} { weights gq(5, anneal=exponential(1 -> 300, over=4 steps)) }
  layers lm.output { activations int16 minmax }
  training { steps 9 steps; batch 8; learning_rate 1e-3 }
}
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder with sentences of the letters a to e, and a float network trained on them."""
    folder = tmp_path_factory.mktemp("text")
    r = np.random.default_rng(0)
    # alphabetic runs: learned soon
    words = ["abcde"[i:j] for i in range(5) for j in range(i + 1, 6)]
    (folder / "text.txt").write_text("\n\n".join(" ".join(r.choice(words, r.integers(1, 9))) for _ in range(500)))
    (folder / "policy.nnac").write_text(TEXT_POLICY)
    arguments = ["--text", str(folder / "text.txt"), "--steps", "100", "--cells", "16", "--vocabulary", "12", "--json",
                 "--processes", "1"]
    assert main(["baseline", "--out", str(folder / "float.nnc"), *arguments]) == 0
    return folder


def test_from_text_to_program_by_the_command_line(text, capsys):
    out = str(text / "module.nnc")
    assert main(["train", str(text / "policy.nnac"), "--text", str(text / "text.txt"), "--float",
                 str(text / "float.nnc"), "--out", out,
                 "--processes", "1"]) == 0
    assert "9 steps, dev perplexity" in capsys.readouterr().out
    assert main(["compile", out, "--out", str(text / "lm.nna")]) == 0
    capsys.readouterr()
    assert main(["compare", out, str(text / "lm.nna"), "--text", str(text / "text.txt"), "--first", "40",
                 "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["different_integers"] == 0 and set(said["values"]) == {"lm.embedding", "lm.lstm[0]", "lm.output",
                                                                       "lm.scores"}
    labels = sum(len(trained(out).end.tokens.encode(line)) for line in read_sentences(text / "text.txt")[:40])
    assert said["values"]["lm.scores"]["compared"] >= 12 * (labels + 40)
    assert main(["compare", out, str(text / "lm.nna"), "--text", str(text / "text.txt"), "--first", "9", "--plant",
                 "lm.output", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["value"] == "lm.output"
    made = trained(out)
    assert made.end.text([1]) and "language model" not in str(made)
    sentences = Sentences(divided(read_sentences(text / "text.txt"))[1], made.end.tokens)
    batch = sentences.batch(np.arange(len(sentences)))
    with torch.no_grad():
        scores = made.module(batch.labels)
    emulator = Emulator(Program.load(text / "lm.nna"))
    got, _ = emulator.run("lm", dict(label=from_edge(batch.labels)[..., None].numpy()),
                          emulator.initial_state("lm", len(batch)))
    assert np.array_equal(np.float32(got["lm.scores"] * 2.0**-11), scores.numpy())
    assert perplexity(made.module,
                      sentences) == pytest.approx(checkpoint.load(out).metadata["training"]["dev_perplexity"], abs=1e-4)
    with pytest.raises(TrainingError, match="hears no audio"):
        made.front  # noqa: B018


def test_the_float_network_learns_from_text(text):
    network = load_float(text / "float.nnc")
    held = Sentences(divided(read_sentences(text / "text.txt"))[1], network.tokens)
    assert perplexity(network.model, held) < 0.8 * network.tokens.count


@pytest.mark.parametrize("content, message", [
    ("one\ntwo\n", "2 sentences .one a line. are too few"), ("ab\n" * 100 + "xyz\n" * 40,
                                                             "the word pieces cannot spell"),
    (b"\xff\xfe\n" * 50, "UTF-8")])
def test_a_text_that_cannot_be_learned_from_is_one_line(text, tmp_path, capsys, content, message):
    file = tmp_path / "bad.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ["--text", str(file), "--float", str(text / "float.nnc"), "--out", str(tmp_path / "o.nnc"),
                 "--processes", "1"]
    assert main(["train", str(text / "policy.nnac"), *arguments]) != 0
    said = capsys.readouterr().err.strip()
    assert re.search(message, said) and len(said.splitlines()) == 1


def test_text_under_a_policy_of_a_recogniser_is_one_line(text, tmp_path, capsys):
    arguments = ["--text", str(text / "text.txt"), "--float", str(text / "float.nnc"), "--out", str(tmp_path / "o.nnc"),
                 "--processes", "1"]
    assert main(["train", "tests/tiny.nnac", *arguments]) == 1
    assert "is no language model" in capsys.readouterr().err
