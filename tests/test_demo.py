"""The whole path end to end, on a tiny model: audio files in, transcripts out, the same integers everywhere."""

import json
import signal
import time
from pathlib import Path

import pytest
from attrs import asdict, evolve

from nnac import checkpoint
from nnac.cli import main
from nnac.demo import Recipe, run
from nnac.model.rnnt_torch import RnntConfig
from nnac.plan import Decode
from nnac.program import Program
from nnac.speech import home
from nnac.speech.corpus import CorpusSpec, train_sentence
from nnac.speech.tokens import LETTERS
from nnac.train.baseline import TrainConfig
from tests.test_interrupted import start

pytest.importorskip("espeakng_loader")
POLICY = str(Path(__file__).parent / "tiny.nnac")


def tiny(train: int = 60, steps: int = 24) -> Recipe:
    """The same path in seconds, for tests: nothing is learned, everything is run."""
    model = RnntConfig(hidden=24, prediction=16, joint=24, embedding=8, vocabulary=LETTERS.count)
    config = TrainConfig(steps=steps, batch_frames=1500, warmup=4, learning_rate=5e-3, model=model, tokens="letters",
                         bfloat16=False)
    return Recipe(CorpusSpec(train=train, dev=4, sent=3, voice=3, wavs=3), config, "specs/rnnt_int8.nnac", 2,
                  policy_utterances=None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, figures, what was said)."""
    out, said = tmp_path_factory.mktemp("demo"), []
    return out, run(out, evolve(tiny(), policy=POLICY), said.append, quiet=True), said


def test_emulator_and_training_module_agree_on_every_integer_and_transcript(demo):
    _, figures, said = demo
    assert figures["different_integers"] == 0 and figures["different_transcripts"] == 0
    assert figures["compared_integers"] > 100_000 and figures["utterances"] == 6
    assert sum("reference" in text for text in said) >= 6, "each utterance is shown"


def test_a_checkpoint_shows_every_stage(demo, capsys):
    out, _, _ = demo
    seen = {}
    for stage in ("plan", "graph", "bound", "program"):
        assert main(["show", str(out / "tiny_int8.nnc"), "--stage", stage]) == 0
        seen[stage] = capsys.readouterr().out
    assert ("features: int8[6, 40] * ?" in seen["graph"] and "* ?" not in seen["bound"]
            and "input int8[96, 120]" in seen["bound"])
    assert seen["program"] == f"{Program.load(out / 'tiny_int8.nnp')}\n"


def test_the_figures_are_whole(demo):
    _, figures, _ = demo
    for key in ("wer_float", "wer_training_module", "wer_emulator", "model_bytes", "program_bytes", "cycles_per_frame",
                "rtf", "wall_s"):
        assert figures[key] > 0, key
    assert figures["wer_training_module"] == figures["wer_emulator"]
    json.dumps(figures)


def test_a_second_call_repeats_nothing(demo):
    out, figures, _ = demo
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    again = run(out, evolve(tiny(), policy=POLICY), lambda text: None, quiet=True)
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()} == before
    assert {k: v for k, v in again.items() if k not in ("wall_s", "setup_s")} == {k: v for k, v in figures.items()
                                                                                  if k not in ("wall_s", "setup_s")}


def test_run_transcribes_files_and_manifests_and_says_what_is_wrong_with_others(demo, tmp_path, capsys):
    out, _, _ = demo
    program, wav = str(out / "tiny_int8.nnp"), str(sorted((out / "corpus" / "wav").iterdir())[0])
    assert main(["run", program, "--audio", wav]) == 0
    assert "real-time factor" in capsys.readouterr().out
    assert main(["run", program, "--manifest", str(out / "corpus" / "sent.jsonl"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4 and "reference" in lines[0] and lines[-1]["wer"] > 0 and lines[-1]["cycles"] > 0
    (tmp_path / "empty.wav").write_bytes(b"")
    assert main(["run", program, "--audio", str(tmp_path / "empty.wav")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("empty.wav: the file is empty")
    assert main(["run", program]) == 2


def test_a_damaged_program_or_checkpoint_is_refused_in_one_line(demo, tmp_path, capsys):
    out, _, _ = demo
    compile_it = ["compile", "FILE", "--out", str(tmp_path / "x")]
    for name, command in (("tiny_int8.nnp", ["run", "FILE", "--audio", "x.wav"]), ("tiny_int8.nnc", compile_it)):
        data = bytearray((out / name).read_bytes())
        cut, altered = tmp_path / f"cut-{name}", tmp_path / f"altered-{name}"
        cut.write_bytes(data[: len(data) // 2])
        data[-5] ^= 1
        altered.write_bytes(data)
        for bad in (cut, altered, tmp_path / "absent"):
            assert main([str(bad) if c == "FILE" else c for c in command]) == 1
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and str(bad) in err


def test_compare_finds_no_difference_and_exits_0(demo, capsys):
    out, _, _ = demo
    checkpoint, program, manifest = (str(out / f) for f in ("tiny_int8.nnc", "tiny_int8.nnp", "corpus/sent.jsonl"))
    assert main(["compare", checkpoint, program, "--manifest", manifest]) == 0
    text = capsys.readouterr().out
    assert ("encoder.lstm[0]" in text and "no difference in 3 utterances" in text
            and "transcripts that differ: 0 of 3" in text)
    wav = str(sorted((out / "corpus" / "wav").iterdir())[0])
    assert main(["compare", checkpoint, program, "--audio", wav, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["different_integers"] == 0 and figures["compared_integers"] == sum(v["compared"]
        for v in figures["values"].values()) > 10_000


@pytest.mark.parametrize("engines", [("torch", "reference"), ("reference", "graphblas"), ("graphblas", "emulator")],
                         ids="-".join)
def test_any_two_engines_are_compared_and_any_one_transcribes(demo, engines, capsys):
    if "graphblas" in engines:
        pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")
    out, _, _ = demo
    wav, checkpoint = str(next((out / "corpus").rglob("sent-0000.wav"))), str(out / "tiny_int8.nnc")
    both = [w for e in engines for w in ("--engine", e)]
    assert main(["compare", checkpoint, *both, "--audio", wav, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["engines"] == [*engines] and figures["different_integers"] == 0
            and figures["compared_integers"] > 10_000)
    assert main(["compare", checkpoint, *both, "--audio", wav, "--plant", "joint.encoder", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["value"] == "joint.encoder"
    texts = []
    for engine in engines:
        assert main(["run", checkpoint, "--audio", wav, "--engine", engine, "--json"]) == 0
        texts.append(json.loads(capsys.readouterr().out.splitlines()[0])["text"])
    assert texts[0] == texts[1]
    assert main(["compare", checkpoint, "--engine", engines[0], "--audio", wav]) == 2
    assert main(["run", str(out / "tiny_int8.nnp"), "--audio", wav, "--engine", "reference"]) == 1
    assert "tiny_int8.nnp is no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("layer", ["encoder.lstm[1]", "prediction.embedding", "joint.encoder"])
def test_compare_names_the_layer_a_fault_was_planted_in_and_exits_1(demo, layer, capsys):
    out, _, _ = demo
    command = ["compare", str(out / "tiny_int8.nnc"), str(out / "tiny_int8.nnp"), "--manifest",
               str(out / "corpus" / "sent.jsonl"), "--first", "2"]
    assert main([*command, "--plant", layer, "--json"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["first"]["value"] == layer and layer in figures["planted"] and figures["utterances"] == 2
    assert main([*command, "--plant", layer]) == 1
    assert f"{layer}[{figures['first']['element']}] at step {figures['first']['step']}" in capsys.readouterr().out


def test_compare_refuses_what_does_not_belong_together_in_one_line(demo, tmp_path, capsys):
    out, _, _ = demo
    checkpoint, manifest = str(out / "tiny_int8.nnc"), str(out / "corpus" / "sent.jsonl")
    program = Program.load(out / "tiny_int8.nnp")
    training = program.metadata["training"]
    others = {"plan": (evolve(program, plan=program.plan | {"name": "another"}), "another plan (`another`"),
              "training": (evolve(program, metadata=program.metadata | {"training": training | {"float": "0" * 64}}),
                           "they differ in float"),
              "none": (evolve(program, plan={}), "carries no plan")}
    for name, (other, message) in others.items():
        other.save(tmp_path / f"{name}.nnp")
        assert main(["compare", checkpoint, str(tmp_path / f"{name}.nnp"), "--manifest", manifest]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1 and f"{name}.nnp" in err
    assert main(["compare", checkpoint, str(out / "tiny_int8.nnp"), "--manifest", manifest, "--plant",
                 "joint.outpt"]) == 1
    assert "did you mean `joint.output`" in capsys.readouterr().err
    assert main(["compare", checkpoint, str(out / "tiny_int8.nnp")]) == 2
    assert main(["compare", checkpoint, checkpoint, "--manifest", manifest]) == 1
    assert "not a whole program file" in capsys.readouterr().err


def test_a_sweep_measures_what_is_missing_and_nothing_twice(demo, tmp_path):
    """The float row and one policy row: files appear, integers are compared, the report stands; a second call does
    nothing."""
    from nnac.report import outcomes

    out, _, _ = demo
    (tmp_path / "all.toml").write_text(f'''
title = "A comparison"

[[table]]
title = "One"
row = [
  {{ name = "float", label = "float32" }},
  {{ name = "int8", label = "8 bits", policy = "{POLICY}", steps = 2 }},
  {{ name = "weights", policy = "{POLICY}", steps = 2, weight_only = true }},
]

[[claim]]
paper = "ours"
text = "is smaller"
row = "int8"
against = "float"
measure = "compression"
at_least = 1.5
''')
    command = ["sweep", str(tmp_path / "all.toml"), "--float", str(out / "float.nnc"), "--corpus", str(out / "corpus"),
               "--utterances", "2",
               "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--out",
               str(tmp_path / "RESULTS.md"), "--jobs", "2"]
    assert main(command) == 0, (tmp_path / "runs" / "int8-s0.log").read_text()
    done = outcomes.load(tmp_path / "results" / "int8-s0.json")
    assert (done.different == 0 and done.checked > 1000 and done.cycles_per_frame > 0 and done.steps == 2
            and set(done.heard) == {"sent", "voice"})
    assert (0 < done.bytes < done.program_bytes
            and outcomes.load(tmp_path / "results" / "float-s0.json").bytes == 4 * done.weights)
    weights = outcomes.load(tmp_path / "results" / "weights-s0.json")
    module, = (tmp_path / "runs").glob("weights-s0-*/module.nnc")
    assert checkpoint.load(module).metadata["training"]["forward"] == "weight-only"
    assert weights.different == 0 and weights.checked > 1000 and weights.digest != done.digest
    made = {f: f.stat().st_mtime_ns for f in (tmp_path / "results").glob("*.json")}
    assert main(command) == 0 and {f: f.stat().st_mtime_ns for f in made} == made
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| 8 bits | " in text and "3 of 3 runs" in text and "holds |" in text


@pytest.fixture(scope="module")
def arpa(demo):
    """(a language model of the training sentences, one of another text), on the demo's letters."""
    out, _, _ = demo
    (out / "text.txt").write_text("call anna and tom\nbuy milk\n\nbuy tea and milk\n")
    source, target = out / "source.arpa", out / "target.arpa"
    assert main(["ngram", "--tokens", str(out / "float.nnc"), "--corpus", str(out / "corpus"), "--order", "3",
                 "--out", str(source)]) == 0
    assert main(["ngram", "--tokens", str(out / "tiny_int8.nnp"), "--text", str(out / "text.txt"), "--order", "4",
                 "--out", str(target)]) == 0
    return str(source), str(target)


def test_a_beam_with_language_models_gives_the_same_nbest_lists_on_both_executors(demo, arpa, capsys):
    out, _, _ = demo
    source, target = arpa
    checkpoint, program, manifest = (str(out / f) for f in ("tiny_int8.nnc", "tiny_int8.nnp", "corpus/sent.jsonl"))
    fusion = ["--search", "beam", "--beam", "4", "--nbest", "3", "--lm", target, "--lm-scale", "0.3",
              "--source-lm", source, "--source-scale", "0.2", "--length-bonus", "0.1"]
    capsys.readouterr()
    assert main(["compare", checkpoint, program, "--manifest", manifest, *fusion, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["different_nbest"] == figures["different_integers"] == 0
    assert main(["run", program, "--manifest", manifest, *fusion, "--json"]) == 0
    *lines, totals = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(len(line["nbest"]) == 3 and line["nbest"][0]["text"] == line["text"] for line in lines)
    every = [h for line in lines for h in line["nbest"]]
    assert all(h["frames"] == sorted(h["frames"]) and len(h["frames"]) == len(h["tokens"]) for h in every)
    scores = [[h["score"] for h in line["nbest"]] for line in lines]
    assert scores == [sorted(s, reverse=True) for s in scores]
    assert main(["run", program, "--manifest", manifest, "--search", "beam", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out.splitlines()[-1])["steps"]
    assert plain["encoder"] == totals["steps"]["encoder"] and plain["joint"] > plain["encoder"]
    assert main(["run", program, "--manifest", manifest, *fusion]) == 0
    assert "    reference: " in capsys.readouterr().out


def test_a_sweep_hears_its_runs_as_its_command_line_says(demo, arpa, languages, tmp_path, capsys, monkeypatch):
    """Beam search and n-grams on the command line: the cycles and words are those of `nnac run` with the same options,
    the search is part of what a run is, and what cannot be is said before anything is trained."""
    from nnac.report import outcomes, runs

    out, _, _ = demo
    source, target = arpa
    ran = []

    def here(jobs, command, *_):
        """The runs in this process, by the command lines that processes would get."""
        ran.append([row.name for row, _ in jobs])
        return [row.name for row, seed in jobs if main(list(command(row, seed))[3:])]

    monkeypatch.setattr(runs, "work", here)
    rows = f'row = [{{ name = "float" }}, {{ name = "int8", policy = "{POLICY}", steps = 0 }}]\n'
    head = 'title = "Heard otherwise"\nsplits = ["voice"]\n[[table]]\ntitle = "One"\n'
    (tmp_path / "e.toml").write_text(head + rows)
    words = ["sweep", str(tmp_path / "e.toml"), "--float", str(out / "float.nnc"), "--corpus", str(out / "corpus"),
             "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "R.md")]
    how = ["--search", "beam", "--beam", "3", "--max-symbols", "4", "--nbest", "2", "--delta", "6", "--blank-penalty",
           "0.1", "--lm", target, "--lm-scale", "0.3", "--source-lm", source, "--source-scale", "0.2",
           "--length-bonus", "0.1"]
    assert main([*words, *how]) == 0
    done = {r: outcomes.load(tmp_path / "results" / f"{r}-s0.json") for r in ("float", "int8")}
    assert done["int8"].different == 0 < done["int8"].checked and done["int8"].notes["different_nbest"] == 0
    shown = str(done["float"].notes["search"])
    assert sorted(shown.split()) == sorted(how) and f"Heard with `{shown}`." in (tmp_path / "R.md").read_text()
    program, = (tmp_path / "runs").glob("int8-s0-*/program.nnp")
    assert any(e.hypotheses > 1 for e in Program.load(program).entries.values()), "compiled for so many hypotheses"
    capsys.readouterr()
    assert main(["run", str(program), "--manifest", str(out / "corpus" / "voice.jsonl"), *how, "--json"]) == 0
    totals = json.loads(capsys.readouterr().out.splitlines()[-1])
    heard = done["int8"].heard["voice"]
    assert totals["cycles_per_frame"] == pytest.approx(done["int8"].cycles_per_frame, abs=0.06)
    assert totals["errors"] == heard.substitutions + heard.deletions + heard.insertions
    assert main([*words, *how]) == 0 and ran == [["float", "int8"], []]
    capsys.readouterr()
    assert main([*words, "--only", "float"]) == 0 and ran[2:] == [["float"]]
    assert "of another policy, and left out until run again: float-s0, int8-s0" in capsys.readouterr().err
    assert "search" not in outcomes.load(tmp_path / "results" / "float-s0.json").notes, "heard greedily again"
    for options, message in ((["--beam", "4"], "--beam is an option of --search beam"),
                             (["--search", "graph"], "--search graph is for hybrids"),
                             (["--search", "beam", "--lm", str(languages[0]), "--lm-scale", "1"],
                              "a neural language model is compiled into every program")):
        assert main([*words, *options]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    fused = ["sweep", "specs/comparison/fusion.toml", *words[2:]]
    assert main([*fused, "--search", "beam"]) == 1
    assert "says in its [search] how runs are searched: --search is for one" in capsys.readouterr().err


def test_search_options_that_do_not_go_together_are_said_in_one_line(demo, arpa, capsys):
    out, _, _ = demo
    command = ["run", str(out / "tiny_int8.nnp"), "--manifest", str(out / "corpus" / "sent.jsonl")]
    text = str(out / "text.txt")
    for options, message in ((["--beam", "4"], "--beam is an option of --search beam"),
                             (["--search=beam", "--lm", arpa[1]], "--lm and --lm-scale go together"),
                             (["--search=beam", "--source-scale=0.2"], "--source-lm and --source-scale go together"),
                             (["--search=beam", "--nbest=9"], "--nbest 9 of a beam of 8"),
                             (["--search=beam", "--lm", text, "--lm-scale=1"], "text.txt: no \\data\\ line"),
                             (["--search=beam", "--lm", str(out / "tiny_int8.nnc"), "--lm-scale=1"],
                              "tiny_int8.nnc is no language model")):
        assert main([*command, *options]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    with pytest.raises(SystemExit):
        main([*command, "--search", "bean"])


def test_tuning_of_weights_takes_any_network_and_resumes(demo, arpa, tmp_path, capsys):
    out, _, _ = demo
    found = {}
    for name in ("float.nnc", "tiny_int8.nnc", "tiny_int8.nnp"):
        command = ["tune-fusion", str(out / name), "--corpus", str(out / "corpus"), "--split", "sent", "--lm", arpa[1],
                   "--source-lm", arpa[0], "--weights", "0.3", "--shares", "0.5", "--bonuses", "0", "--beam", "2",
                   "--out", str(tmp_path / f"{name}.jsonl"), "--json"]
        assert main(command) == 0
        found[name] = json.loads(capsys.readouterr().out)
        before = (tmp_path / f"{name}.jsonl").read_bytes()
        assert main(command) == 0 and json.loads(capsys.readouterr().out) == found[name]
        assert (tmp_path / f"{name}.jsonl").read_bytes() == before
    assert set(found["float.nnc"]) == {"none", "shallow", "density_ratio", "internal"}
    assert found["tiny_int8.nnc"] == found["tiny_int8.nnp"], "training module and emulator"
    assert main([*command[:2], *command[2:6], "--fusion", "shallow", "--out", str(tmp_path / "x")]) == 1
    assert "shallow needs --lm" in capsys.readouterr().err


def test_tuning_that_is_interrupted_goes_on_where_it_was(demo, arpa, tmp_path, capsys, monkeypatch):
    """Ctrl-C in the middle: what was found stays byte for byte, is not searched again, and the end is the same."""
    from nnac.decode import tuning

    out, _, _ = demo

    def command(path):
        return ["tune-fusion", str(out / "float.nnc"), "--corpus", str(out / "corpus"), "--split", "sent", "--lm",
                arpa[1], "--source-lm", arpa[0], "--weights", "0.2,0.3,0.4", "--shares", "0.5,0.8", "--bonuses",
                "0,0.1,0.2", "--beam", "2", "--json", "--out", str(path)]

    whole, path = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert main(command(whole)) == 0
    said = capsys.readouterr().out
    process = start("-m", "nnac", *command(path))
    while process.poll() is None and not (path.is_file() and len(path.read_text().splitlines()) > 5):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    rows = path.read_bytes()
    assert process.returncode == 130 and error.split() == ["interrupted"]
    count = len(whole.read_text().splitlines())
    assert 5 < len(rows.splitlines()) < count
    asked, found = [], tuning.Encoded.texts
    monkeypatch.setattr(tuning.Encoded, "texts", lambda self, *args: asked.append(args) or found(self, *args))
    assert main(command(path)) == 0 and capsys.readouterr().out == said
    assert path.read_bytes().startswith(rows) and path.read_bytes() == whole.read_bytes()
    assert len(asked) == count - len(rows.splitlines()), "nothing is searched again"


@pytest.fixture(scope="module")
def languages(demo):
    """(target, source): two tiny LSTM language models on the demo's letters, trained for the demo's machine."""
    out, _, _ = demo
    policy = out / "lm.nnac"
    policy.write_text("""import "targets/edge.nnac"
policy tiny_lm {
  model lm(size="small", vocabulary=29, cells=16)
  target edge
  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }
}
""")
    found = []
    said = dict(target=home.sentences("text", 1, 300), source=[train_sentence(1, i) for i in range(300)])
    for name, lines in said.items():
        (out / f"{name}-lm.txt").write_text("\n".join(lines))
        start, made, text = (str(out / f"{name}-lm{ending}") for ending in ("-float.nnc", ".nnc", ".txt"))
        how = ["--processes", "1", "--json"]
        assert main(["baseline", "--text", text, "--tokens", str(out / "float.nnc"), "--out", start, "--steps", "3",
                     "--cells", "16", *how]) == 0
        assert main(["train", str(policy), "--float", start, "--text", text, "--out", made, "--steps", "0", *how]) == 0
        found.append(made)
    return found


def test_language_models_in_the_program_give_the_same_nbest_lists_on_every_executor(demo, languages, tmp_path, capsys):
    out, _, _ = demo
    target, source = languages
    checkpoint, manifest = str(out / "tiny_int8.nnc"), str(out / "corpus" / "sent.jsonl")
    program = str(tmp_path / "all.nnp")
    assert main(["compile", checkpoint, "--lm", target, "--source-lm", source, "--out", program]) == 0
    assert {"lm.step", "source_lm.step"} < set(Program.load(program).entries)
    scales = ["--search", "beam", "--beam", "4", "--nbest", "4", "--lm-scale", "0.4", "--source-scale", "0.3"]
    given = [*scales, "--lm", target, "--source-lm", source]
    tune = ["tune-fusion", program, "--corpus", str(out / "corpus"), "--split", "sent", "--weights=0.3", "--shares=0.5",
            "--bonuses=0", "--beam=2", "--out", str(tmp_path / "tuned.jsonl"), "--json"]
    capsys.readouterr()
    assert main(tune) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"none", "shallow", "density_ratio", "internal"}
    for pair in (("torch", "emulator"), ("reference", "emulator"), ("emulator", "torch")):
        engines = [word for engine in pair for word in ("--engine", engine)]
        assert main(["compare", checkpoint, program, "--manifest", manifest, *given, *engines, "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures["different_nbest"] == figures["different_integers"] == 0
        assert figures["values"]["lm.scores"]["compared"] == figures["values"]["source_lm.scores"]["compared"] > 100
    said = {}
    plain = [program, "--search=beam", "--beam=4"]
    for name, words in dict(program=[program, *scales], checkpoint=[checkpoint, *given], plain=plain).items():
        assert main(["run", *words, "--manifest", manifest, "--json"]) == 0
        said[name] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("nbest") for line in said["program"]] == [line.get("nbest") for line in said["checkpoint"]]
    steps = said["program"][-1]["steps"]
    assert steps["lm"] == steps["source_lm"] == steps["prediction"] and "lm" not in said["plain"][-1]["steps"]
    entries = Program.load(program).entries
    assert set(steps) == {"encoder", "prediction", "joint", "lm", "source_lm"}
    # hypotheses share calls, so they cost less than one by one
    alone = {e: n * entries[f"{e}.step"].cycles for e, n in steps.items()}
    assert alone["encoder"] < said["program"][-1]["cycles"] < sum(alone.values())
    swapped = ["--lm", source, "--source-lm", target]
    assert main(["compare", checkpoint, program, "--manifest", manifest, *scales, *swapped]) == 1
    assert "compiled with another --lm: compile it again" in capsys.readouterr().err


def test_a_language_model_that_does_not_belong_is_refused_in_one_line(demo, languages, arpa, tmp_path, capsys):
    out, _, _ = demo
    manifest, plain = str(out / "corpus" / "sent.jsonl"), str(out / "tiny_int8.nnp")
    beam = ["--manifest", manifest, "--search", "beam", "--lm-scale", "0.4"]
    for command, message in ((["run", plain, *beam, "--lm", languages[0]], "compiled without --lm"),
                             (["run", plain, *beam], "--lm and --lm-scale go together"),
                             (["compile", str(out / "tiny_int8.nnc"), "--lm", arpa[0], "--out", str(tmp_path / "x")],
                              "n-gram models stay on the host"),
                             (["compile", str(out / "tiny_int8.nnc"), "--lm", str(out / "tiny_int8.nnc"), "--out",
                               str(tmp_path / "x")], "is no language model")):
        capsys.readouterr()
        assert main(command) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1, err


def test_a_program_searches_as_its_policy_says_unless_told_otherwise(demo, arpa, tmp_path, capsys):
    out, _, _ = demo
    program, manifest = Program.load(out / "tiny_int8.nnp"), str(out / "corpus" / "sent.jsonl")
    said = Decode("beam", 4, length_bonus=0.1, fusion="shallow", weight=0.3)
    changed = tmp_path / "beam.nnp"
    evolve(program, plan=dict(program.plan) | {"decode": asdict(said)}).save(changed)

    def heard(path, *options):
        assert main(["run", str(path), "--manifest", manifest, "--nbest", "2", "--json", *options]) == 0
        return [json.loads(line).get("nbest") for line in capsys.readouterr().out.splitlines()]

    by_hand = ["--search", "beam", "--beam", "4", "--lm", arpa[1], "--lm-scale", "0.3", "--length-bonus", "0.1"]
    assert heard(changed, "--lm", arpa[1]) == heard(out / "tiny_int8.nnp", *by_hand)
    assert heard(changed, "--lm", arpa[1], "--beam", "2") == heard(out / "tiny_int8.nnp", *by_hand, "--beam", "2")
    aside = ["--search", "beam"]
    assert heard(changed, *aside) == heard(out / "tiny_int8.nnp", *aside), "the block is set aside as a whole"
    capsys.readouterr()
    assert main(["run", str(changed), "--manifest", manifest]) == 1
    assert "--lm and --lm-scale go together, on the command line or from the policy" in capsys.readouterr().err


def test_a_policy_that_names_its_language_models_makes_a_program_that_carries_them(demo, languages, arpa, tmp_path,
                                                                                   capsys):
    """`fusion density_ratio(target=…, source=…, …)`: files from the policy's folder, found at lint, compiled in, asked
    by whoever runs the program; the command line names others."""
    out, _, _ = demo
    manifest, text = str(out / "corpus" / "sent.jsonl"), Path(POLICY).read_text()
    target, source = (Path(name) for name in languages)
    for lm in languages:
        (tmp_path / Path(lm).name).write_bytes(Path(lm).read_bytes())
    policy = tmp_path / "fused.nnac"
    fusion = f'density_ratio(target="{target.name}", source="{source.name}", 0.4, -0.3)'
    policy.write_text(text.replace("../specs/", "") .replace("  training", "  decode { search beam(4); fusion "
                      f"{fusion} }}\n  training"))
    assert main(["lint", str(policy)]) == 0
    said = capsys.readouterr().out
    assert "language-model" not in said and "its language models take about" in said
    checkpoint_, program = str(tmp_path / "fused.nnc"), str(tmp_path / "fused.nnp")
    assert main(["train", str(policy), "--float", str(out / "float.nnc"), "--corpus", str(out / "corpus"), "--out",
                 checkpoint_, "--steps", "0", "--json", "--processes", "1"]) == 0
    assert main(["compile", checkpoint_, "--out", program]) == 0
    made = Program.load(program)
    assert {"lm.step", "lm.steps[4]", "source_lm.step"} < set(made.entries)
    assert made.plan["decode"]["target"] == target.name, "the program says the name alone: it carries what is in it"

    def heard(*words):
        capsys.readouterr()
        assert main(["run", *map(str, words), "--manifest", manifest, "--nbest", "2", "--json"]) == 0
        return [json.loads(line).get("nbest") for line in capsys.readouterr().out.splitlines()]

    by_hand = ["--search", "beam", "--beam", "4", "--lm-scale", "0.4", "--source-scale", "0.3"]
    assert heard(program) == heard(program, *by_hand) == heard(checkpoint_)
    files = ["--lm", tmp_path / target.name, "--source-lm", tmp_path / source.name]
    assert heard(checkpoint_) == heard(checkpoint_, *by_hand, *files) != heard(checkpoint_, "--search", "beam")
    for lm in languages:
        (tmp_path / Path(lm).name).unlink()
    assert heard(program) == heard(program, *by_hand), "what it carries needs no file"
    capsys.readouterr()
    assert main(["compile", checkpoint_, "--lm", languages[0], "--out", program]) == 1
    err = capsys.readouterr().err
    assert f"{source.name}: no such file, and policy tiny_int8 names it in `decode`: --source-lm FILE" in err
    assert err.count("\n") == 1
    swapped = ["--lm", languages[1], "--source-lm", languages[0]]
    assert main(["compile", checkpoint_, *swapped, "--out", program]) == 0
    assert Program.load(program).metadata["languages"]["lm"]["training"] != made.metadata["languages"]["lm"]["training"]


def test_a_file_that_no_program_can_carry_is_said_by_lint(demo, languages, arpa, tmp_path, capsys):
    out, _, _ = demo
    text = Path(POLICY).read_text().replace("../specs/", "")
    lm = Path(languages[0]).read_bytes()
    (tmp_path / "lm.nnc").write_bytes(lm)
    (tmp_path / "cut.nnc").write_bytes(lm[: len(lm) // 2])
    for name in ("tiny_int8.nnc", "float.nnc", "target-lm-float.nnc"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    (tmp_path / "lm.arpa").write_bytes(Path(arpa[0]).read_bytes())
    (tmp_path / "folder").mkdir()

    def lint(file, was="", now="", status=1):
        policy = tmp_path / "p.nnac"
        block = f'  decode {{ search beam(4); fusion shallow(0.3, target="{file}") }}\n  training'
        policy.write_text(text.replace("  training", block).replace(was, now))
        assert main(["lint", str(policy), "--json"]) == status, file
        found = json.loads(capsys.readouterr().out)["diagnostics"]
        return {d["message"]: d["severity"] for d in found if d["code"] == "language-model"}

    assert lint("lm.nnc", status=0) == {}
    assert lint("away/lm.nnc", status=0) == {"`lm.nnc`: no such file": "warning"}
    for file in ("tiny_int8.nnc", "float.nnc", "target-lm-float.nnc"):
        assert lint(file) == {f"`{file}`: is no language model: what `nnac train --text` made is one": "error"}
    (message,) = lint("lm.arpa")
    assert "n-gram models stay on the host" in message
    (message,) = lint("cut.nnc")
    assert message.startswith("`cut.nnc`: ")
    (message,) = lint("folder")
    assert "folder" in message
    assert lint("lm.nnc", "vocabulary=29", "vocabulary=30") == {
        "`lm.nnc`: 29 tokens, the recogniser has 30": "error"}
    assert lint("lm.nnc", "edge", "large") == {"`lm.nnc`: for the target `edge`, this policy for `large`": "error"}
