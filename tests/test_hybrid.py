"""The hybrid: the third family.  Built, linted, aligned, trained, compiled, emulated, searched on a graph."""

import hashlib
import json
import re
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac.cli import main
from nnac.compare import compare
from nnac.compiler import trained
from nnac.decode import acoustic
from nnac.decode.front_end import hypotheses
from nnac.decode.search.graph import GraphSearch
from nnac.emulator.executor import Emulator
from nnac.executors.reference import Reference
from nnac.executors.torch import Torch
from nnac.hybrid import alignments, graph
from nnac.language.check import check_file
from nnac.lower import lower_plan
from nnac.model import ModelError, build
from nnac.model.hybrid_torch import HybridConfig, HybridNetwork, cross_entropy
from nnac.policy import loads
from nnac.program import Program
from nnac.report import outcomes
from nnac.schedule.compile import Settings, compile_graph
from nnac.speech.audio import Utterance, write_manifest, write_wav
from nnac.speech.corpus import Recipe, load_split
from nnac.speech.wer import word_errors
from nnac.train import loop
from nnac.train.families import module_of
from nnac.train.families.hybrid import Hybrid
from nnac.train.frames import FrameBatch
from nnac.train.hybrid import HybridLearner, HybridTraining, float_task, policy_task, train
from nnac.train.pace import Run
from nnac.train.policy import PolicyConfig
from nnac.train.processes import Stopped, TrainingError
from tests.test_executors import same_integers
from tests.test_hybrid_parts import SMALL, spoken

POLICY = """
import "targets/{target}.nnac"
policy p {{
  model hybrid({shape})
  target {target}
  layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}
  layers **.lstm[*] {{ cell int16 fraction(11) {lstm} }}
  training {{ steps 12 steps; learning_rate 3e-4 }}
}}
"""
INT4 = "; weights int4 per_gate sawb(plus=true, zero_aligned=true); hidden int4 fixed(1); accumulate sum16"
TINY = 'size="tiny"'
LIKE_CORPUS = 'size="small", cells=24, layers=2, bottleneck=16, states=16'


def plan_of(shape=TINY, target="edge", lstm=""):
    return loads(POLICY.format(shape=shape, target=target, lstm=lstm)).plan


def module_for(plan, frames=40, seed=0):
    torch.manual_seed(seed)
    module = Hybrid(lower_plan(plan), None, plan)
    features = plan.graph.inputs["features"]
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((frames, 3, features)).astype(np.float32))
    module.calibrate([(x, torch.tensor([frames, frames - 7, frames // 2]))])
    return module.eval()


# -------------------------------------------------------------------------------------------------------- builder

def test_the_papers_size():
    made = build("hybrid", size="dblstm43m")
    assert made.weights == 43_073_536 and made.by_path["encoder.output"].width == 32_000
    assert [layer.width for layer in made if layer.recurrent] == [1024] * 6 and made.frame_ms == 10
    entry, = made.entries
    assert entry.inputs == ("features",) and entry.outputs == ("encoder.scores",) and len(entry.keeps) == 6


@pytest.mark.parametrize(("arguments", "what"), [
    (dict(size="huge"), "no hybrid's size is called `huge`"),
    (dict(states=1), "`states` of a hybrid is a whole number from 2"),
    (dict(states=40_000), "to 32767"), (dict(norm=1), "`norm` of a hybrid is true or false"),
    (dict(cells=0), "`cells` of a hybrid"), (dict(frame_ms=0), "`frame_ms` of a hybrid is a number above 0")])
def test_impossible_sizes(arguments, what):
    with pytest.raises(ModelError, match=what):
        build("hybrid", **arguments)


def test_a_bottleneck_may_be_absent_and_frames_are_stacked():
    made = build("hybrid", bottleneck=0)
    assert "encoder.bottleneck" not in made.by_path and made.by_path["encoder.stack"].width == 120
    assert made.frame_ms == 30 and made.by_path["encoder.output"].kernels[0].cols == 384


def test_names_of_network_and_graph_are_one():
    module = Hybrid(lower_plan(plan_of()), HybridNetwork(HybridConfig(8, 2, 2, 16, 16, 12)).state_dict(), plan_of())
    assert module_of("hybrid") is Hybrid and module.learns_from == "alignments"


# -------------------------------------------------------------------------------------------------------- integers

@pytest.mark.parametrize(("target", "lstm"), [("edge", ""), ("rapid", INT4), ("tiny", "")])
def test_every_executor_computes_the_same_integers(target, lstm):
    """Passes of the machine, one direction each, against the whole sequence at once."""
    plan = plan_of(target=target, lstm=lstm)
    module = module_for(plan)
    bound = module.bind()
    program = compile_graph(bound, plan.target, Settings.of(plan))
    backwards = [e for e in program.entries.values() if e.backward]
    assert len(backwards) == 2 and not program.host
    one = Reference(bound)
    assert same_integers(one, Torch(module), bound) > 1000
    assert same_integers(one, Emulator(program), bound, taps=False) > 500


@pytest.mark.parametrize(("file", "policy"), [
    ("papers/int4_dblstm", "int4_dblstm"), ("papers/int4_dblstm", "int4_dblstm_naive"),
    *(("comparison/int4_dblstm", name) for name in ("int8", "int4_naive", "int4_dblstm"))])
def test_what_the_papers_policies_train_is_what_their_programs_compute(file, policy):
    """Small in width, as deep as they are: steps of training, then every integer of module, reference and program."""
    size = next(r.plan.model.arguments["size"] for r in check_file(f"specs/{file}.nnac").resolutions)
    plan = loads(f'import "specs/{file}.nnac"\npolicy p extends {policy} {{\n  model hybrid(size="{size}", features=8, '
                 'cells=16, bottleneck=16, states=40)\n  budget { bits_per_weight <= 32 }\n}\n', "p").plan
    module = module_for(plan)
    learner = HybridLearner(module, 3, 10)
    optimiser, rng = torch.optim.Adam(module.parameters(), 1e-3), np.random.default_rng(0)
    for step in range(3):
        learner.before_step(step)
        batch = FrameBatch(torch.from_numpy(rng.standard_normal((24, 3, 8)).astype(np.float32)),
                           torch.tensor([24, 20, 11]), torch.from_numpy(rng.integers(-1, 40, (24 // (
                               1 if "43" in size else 3), 3))))
        optimiser.zero_grad()
        learner.loss(batch)[0].backward()
        optimiser.step()
    learner.before_step(3)
    bound = module.eval().bind()
    assert same_integers(Reference(bound), Torch(module), bound) > 1000
    program = compile_graph(bound, plan.target, Settings.of(plan))
    assert same_integers(Reference(bound), Emulator(program), bound, taps=False) > 500


def test_log_probabilities_below_the_floor_are_no_loss_that_calibration_warns_of():
    plan = plan_of()
    module = Hybrid(lower_plan(plan), None, plan)
    with torch.no_grad():
        module.layer("encoder.output").bias.copy_(torch.linspace(0, 60, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.calibrate([(torch.randn(20, 2, 8), torch.tensor([20, 20]))])
    module.eval()
    with torch.no_grad():
        assert module(torch.randn(20, 2, 8), torch.tensor([20, 20]))[0].min() == -16


def test_a_backward_direction_begins_at_each_rows_end():
    """Rows of a padded batch have the scores that each has alone, in the float network and in the module."""
    plan = plan_of()
    module, network = module_for(plan), HybridNetwork(HybridConfig(8, 2, 2, 16, 16, 12)).eval()
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((20, 3, 8)).astype(np.float32))
    lengths = torch.tensor([20, 13, 6])
    for model, close in ((module, 0), (network, 1e-5)):
        with torch.no_grad():
            together, ends = model(x, lengths)
            for b, n in enumerate(lengths.tolist()):
                alone, _ = model(x[:n, b:b + 1], lengths[b:b + 1])
                assert ends[b] == n // 2
                assert (together[:n // 2, b] - alone[:, 0]).abs().max() <= close


def test_many_states_are_computed_in_bands_and_normalised_by_the_host():
    """A vector instruction holds 4,096 elements: a wider log-softmax is the host's, the same integers."""
    plan = plan_of('size="tiny", states=5000')
    module = module_for(plan)
    bound = module.bind()
    program = compile_graph(bound, plan.target, Settings.of(plan))
    assert [h.path for h in program.host] == ["encoder.scores"]
    assert same_integers(Reference(bound), Emulator(program), bound, steps=2, batch=1, taps=False) > 5000


def test_frames_without_a_label_do_not_count():
    scores = torch.log_softmax(torch.randn(5, 2, 4), -1)
    labels = torch.tensor([[0, 1], [3, -1], [2, -1], [1, -1], [-1, -1]])
    by_hand = -sum(scores[t, b, labels[t, b]] for t in range(5) for b in range(2) if labels[t, b] >= 0)
    assert cross_entropy(scores, labels) == pytest.approx(float(by_hand), abs=1e-5)


# ----------------------------------------------------------------------------------------------- from the command

@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A corpus that is quickly learned: each phone a place of its own; and two WAV files of noise."""
    folder = tmp_path_factory.mktemp("hybrid")
    corpus = folder / "corpus"
    corpus.mkdir()
    for name, count, seed in (("train", 90, 0), ("dev", 16, 1), ("voice", 8, 2)):
        made, texts, _ = spoken(count, seed, bins=40)
        made = [np.repeat(f, 3, 0) for f in made]
        whole = np.concatenate(made).astype(np.float16)
        rows = [dict(frames=len(f), text=t, voice="v", seconds=len(f) / 100)
                for f, t in zip(made, texts, strict=True)]
        np.save(corpus / f"{name}.features.npy", whole)
        (corpus / f"{name}.json").write_text(json.dumps(dict(
            version=1, recipe=Recipe().to_json(), split=name, count=count, utterances=rows,
            sha256=hashlib.sha256(whole.data).hexdigest())))
    rng = np.random.default_rng(0)
    for i in range(2):
        write_wav(folder / f"{i}.wav", rng.normal(0, 3000, 16_000 + 4_000 * i).astype(np.int16))
    for where in (folder / "some.jsonl", corpus / "voice.jsonl"):
        write_manifest(where, [Utterance(str(folder / f"{i}.wav"), "ab the c") for i in range(2)])
    (folder / "lexicon.txt").write_text("ab A B\nc C\nthe D A\nthe D B\n")
    (folder / "p.nnac").write_text(POLICY.format(shape=LIKE_CORPUS, target="rapid", lstm=INT4))

    def run(*words):
        assert main([str(folder / w.removeprefix("@")) if w.startswith("@") else w for w in words]) == 0

    run("align", "--corpus", "@corpus", "--lexicon", "@lexicon.txt", "--states", "16", "--out", "@flat.ali", "--json")
    config = HybridTraining(steps=60, batch_frames=2500, shards=1, learning_rate=5e-3, warmup=10, bfloat16=False,
                            model=HybridConfig(cells=24, layers=2, bottleneck=16))
    train(float_task(corpus, folder / "flat.ali", folder / "f.nnc", config), "", 1, True)
    run("align", "--corpus", "@corpus", "--network", "@f.nnc", "--out", "@again.ali", "--json")
    run("ngram", "--tokens", "@f.nnc", "--corpus", "@corpus", "--order", "2", "--out", "@w.arpa", "--json")
    run("graph", "@f.nnc", "--lm", "@w.arpa", "--out", "@w.graph", "--json")
    run("train", "@p.nnac", "--float", "@f.nnc", "--corpus", "@corpus", "--alignments", "@again.ali", "--out", "@m.nnc",
        "--processes", "1", "--json")
    run("compile", "@m.nnc", "--out", "@m.nnp", "--json")
    return folder


def test_it_learns_to_hear(here):
    """Float network, module and program find the words of the dev split, and the last two the same ones."""
    pytest.importorskip("kaldi_decoder", reason="the extra `hybrid` is not installed")
    network, module = acoustic.load(here / "f.nnc"), trained(here / "m.nnc")
    dev = load_split(here / "corpus", "dev")
    search = GraphSearch(graph.load(here / "w.graph"), network.hmm)
    features = [network.normalisation.apply(f) for f in dev.features]
    texts = {}
    for name, model, carry in (("float", acoustic.RealHearing(network.model), torch.from_numpy),
                               ("module", module.module.scorer(), torch.from_numpy)):
        found = hypotheses(model, features, carry=carry, search=search)
        texts[name] = [module.front.text(nbest[0].tokens) for nbest in found]
        assert word_errors(dev.texts, texts[name]).rate < 15
    done = compare(module.module, Emulator(Program.load(here / "m.nnp")), module.front, features[:6], search=search)
    assert done.equal and done.compared > 10_000 and done.texts == texts["module"][:6]
    assert done.steps.keys() == {"encoder"}
    assert alignments.moved(alignments.load(here / "flat.ali"), alignments.load(here / "again.ali")) < 0.2


def test_the_commands_of_a_recogniser_are_the_hybrids_too(here, capsys):
    pytest.importorskip("kaldi_decoder", reason="the extra `hybrid` is not installed")
    program, manifest, words = str(here / "m.nnp"), str(here / "some.jsonl"), str(here / "w.graph")
    assert main(["run", program, "--manifest", manifest, "--graph", words, "--nbest", "3", "--json"]) == 0
    *rows, totals = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(rows) == 2 and totals["steps"] == {"encoder": 32 + 41} and totals["cycles"] > 0 and "wer" in totals
    for row in rows:
        scores = [h["score"] for h in row["nbest"]]
        assert scores == sorted(scores, reverse=True) and len({h["text"] for h in row["nbest"]}) == len(scores)
    assert main(["compare", str(here / "m.nnc"), program, "--manifest", manifest, "--graph", words, "--nbest", "2",
                 "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["different_integers"] == done["different_transcripts"] == done["different_nbest"] == 0
    assert main(["compare", str(here / "m.nnc"), "--manifest", manifest, "--graph", words, "--plant",
                 "encoder.bottleneck", "--engine", "torch", "--engine", "reference", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["value"] == "encoder.bottleneck"


def test_a_picture_of_an_alignment(here, capsys):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    assert main(["align", "--corpus", str(here / "corpus"), "--network", str(here / "f.nnc"), "--out",
                 str(here / "third.ali"), "--picture", str(here / "p.svg"), "--utterance", "3", "--topology"]) == 0
    out = capsys.readouterr().out
    assert "16 states: 6 of a phone after a given one" in out and "5 phones: SIL A B C D" in out
    assert "<svg" in (here / "p.svg").read_text()[:500]


@pytest.mark.parametrize(("words", "status", "what"), [
    (["run", "@m.nnp", "--manifest", "@some.jsonl"], 1, "a hybrid's words are found on a decoding graph: give --graph"),
    (["run", "@m.nnp", "--manifest", "@some.jsonl", "--graph", "@other.graph"], 1,
     "other.graph: of another inventory of states"),
    (["run", "@m.nnp", "--manifest", "@some.jsonl", "--graph", "@w.graph", "--search", "beam"], 1,
     "--search beam is for transducers"),
    (["run", "@m.nnp", "--manifest", "@some.jsonl", "--graph", "@w.graph", "--lm-scale", "1"], 1,
     "--lm-scale is for transducers"),
    (["run", "@m.nnp", "--manifest", "@some.jsonl", "--graph", "@f.nnc"], 1, "expected 'decoding-graph'"),
    (["train", "@p.nnac", "--float", "@f.nnc", "--corpus", "@corpus", "--out", "@x.nnc"], 2,
     "learns the state of every frame: give --alignments FILE"),
    (["train", "specs/rnnt_int8.nnac", "--float", "@f.nnc", "--corpus", "@corpus", "--alignments", "@flat.ali", "--out",
      "@x.nnc"], 2, "--alignments is a hybrid's: the policy says `model rnnt"),
    (["train", "@p.nnac", "--float", "@f.nnc", "--corpus", "@corpus", "--alignments", "@other.ali", "--out", "@x.nnc",
      "--processes", "1"], 1, "f.nnc has other states than"),
    (["train", "@p.nnac", "--float", "@f.nnc", "--corpus", "@shorter", "--alignments", "@flat.ali", "--out", "@x.nnc",
      "--processes", "1"], 1, "frames of 3, its alignment"),
    (["baseline", "--corpus", "@corpus", "--alignments", "@flat.ali", "--longer", "--out", "@x.nnc"], 2,
     "--longer is not a hybrid's"),
    (["align", "--corpus", "@corpus", "--out", "@x.ali"], 1, "have no pronunciation|has no pronunciation"),
    (["align", "--corpus", "@corpus", "--lexicon", "@lexicon.txt", "--states", "900", "--out", "@x.ali"], 1,
     "900 states were asked for"),
    (["align", "--corpus", "@corpus", "--network", "@f.nnc", "--states", "16", "--out", "@x.ali"], 2,
     "--states and --network"),
    (["align", "--topology", "--out", "@x.ali"], 2, "give --corpus: a corpus is aligned"),
    (["graph", "networks/demo.nnc", "--lm", "@w.arpa", "--out", "@x.graph"], 1, "graphs are for hybrids"),
])
def test_what_does_not_belong_together_is_one_line(here, capsys, words, status, what):
    made = graph.load(here / "w.graph")
    if not (here / "other.graph").exists():
        evolve(made, inventory="0" * 64).save(here / "other.graph")
        other = alignments.flat([load_split(here / "corpus", n) for n in ("train", "dev")], SMALL, 14, 3)
        other.save(here / "other.ali")
        (here / "shorter").mkdir()
        for name in ("train", "dev"):
            index = json.loads((here / "corpus" / f"{name}.json").read_text())
            index["utterances"][0]["frames"] -= 6
            whole = np.load(here / "corpus" / f"{name}.features.npy")[6:]
            np.save(here / "shorter" / f"{name}.features.npy", whole)
            (here / "shorter" / f"{name}.json").write_text(json.dumps(
                index | dict(sha256=hashlib.sha256(whole.data).hexdigest())))
    found = main([str(here / w.removeprefix("@")) if w.startswith("@") else w for w in words])
    error = capsys.readouterr().err
    assert found == status, error
    said = [line for line in error.splitlines() if not line.startswith("aligning: ")]           # not the progress
    assert len(said) == 1 and re.search(what, said[0])


def test_hybrids_are_swept_as_transducers_are(here, capsys):
    """One run a process is `--one`; its result file is of the same kind."""
    pytest.importorskip("kaldi_decoder", reason="the extra `hybrid` is not installed")
    (here / "e.toml").write_text("""
title = "Hybrids"
splits = ["voice"]
[[table]]
title = "One"
against = "float"
row = [{ name = "float" }, { name = "int4", policy = "p.nnac", steps = 2 }]
""")
    words = ["sweep", str(here / "e.toml"), "--corpus", str(here / "corpus"), "--float", str(here / "f.nnc"),
             "--results", str(here / "results"), "--runs", str(here / "runs"), "--out", str(here / "R.md")]
    assert main([*words, "--one", "float:0"]) == 1
    assert "is of a hybrid: give --alignments FILE and --graph FILE" in capsys.readouterr().err
    words += ["--alignments", str(here / "again.ali"), "--graph", str(here / "w.graph")]
    for row in ("float:0", "int4:0"):
        assert main([*words, "--one", row]) == 0
    done = outcomes.load(here / "results" / "int4-s0.json")
    assert done.different == 0 < done.checked and done.rate < 40 and done.cycles_per_frame and done.target == "rapid"
    assert main([*words, "--report"]) == 0
    assert "| against float |" in (here / "R.md").read_text()


def test_a_training_that_is_stopped_ends_with_the_same_weights(here, monkeypatch):
    """Under a policy, at step 3 of 6, and in real numbers."""
    plan = loads((here / "p.nnac").read_text()).plan
    config = PolicyConfig(steps=6, batch_frames=1500, shards=2, calibration=20)

    def task(name):
        return policy_task(plan, here / "f.nnc", here / "corpus", here / "again.ali", here / name, config)

    train(task("whole.nnc"), "", 1, True)
    stops = iter([False] * 3 + [True])

    @contextmanager
    def stopping():
        yield lambda: next(stops, False)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "interruptible", stopping)
        with pytest.raises(Stopped):
            train(task("part.nnc"), "", 1, True, Run(every=100))
    train(task("part.nnc"), "", 1, True)
    one, two = (trained(here / n).module.state_dict() for n in ("whole.nnc", "part.nnc"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    with pytest.raises(TrainingError, match="was trained with other settings"):
        train(policy_task(plan, here / "f.nnc", here / "corpus", here / "flat.ali", here / "part.nnc", config), "", 1,
              True)
