"""The comparison of executors: silent when they agree, and it names the layer where a planted fault begins.  The
command: test_demo.py."""

import numpy as np
import pytest
import torch
from attrs import evolve

from benchmarks.small import make
from nnac.cli import main
from nnac.compare import CompareError, compare, plant, with_fault
from nnac.decode.front_end import FrontEnd
from nnac.decode.fusion import Fusion
from nnac.decode.integer import ProtocolError
from nnac.decode.search.beam import Beam
from nnac.emulator.executor import Emulator
from nnac.executors import EngineError, Subject, executor, names
from nnac.executors.reference import Reference
from nnac.formats import Precision
from nnac.lower import lower
from nnac.model import build
from nnac.program import Program
from nnac.runtime import recognise
from nnac.schedule.compile import compile_graph
from nnac.speech.audio import write_wav
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import LETTERS
from nnac.train.families.rnnt import Transducer
from tests.lattices import Sentences
from tests.schedules import EDGE


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("small"))


def tiny():
    torch.manual_seed(3)
    model = build("rnnt", size="tiny", vocabulary=LETTERS.count)
    inner = ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")
    module = Transducer(lower(model, lambda path: Precision(activations=16 if path in inner else 8)))
    with torch.no_grad():
        module.joint.output.bias[0] += 0.5                       # so that blanks end most frames
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 23, 31, 12, 36)]
    batch = torch.from_numpy(rng.standard_normal((40, 3, 8)).astype(np.float32))
    module.calibrate([(batch, torch.tensor([40, 33, 20]), torch.zeros(4, 3, dtype=torch.long))])
    front = FrontEnd(FeatureSpec(bins=8), Normalisation.of(np.concatenate(features)), LETTERS)
    return module.eval(), front, features


def test_the_reference_agrees_with_the_training_module_at_every_value():
    module, front, features = tiny()
    graph = module.bind()
    result = compare(module, Reference(graph), front, features, batch=3)
    assert result.equal and result.first is None and result.compared > 10_000
    assert set(result.by_value) >= {n.output for n in graph.nodes}
    assert any(result.texts), "nothing was transcribed: the test proves little"


def test_a_fault_planted_in_any_layer_is_named_and_nothing_before_it_differs():
    module, front, features = tiny()
    graph = module.bind()
    able = [n.path for n in graph.nodes if {"bias", "weight"} & n.constants.keys()]
    assert len(able) >= 8
    for path in able:
        bad, what = plant(graph, path)
        result = compare(module, Reference(bad), front, features)
        assert not result.equal and result.first is not None and result.first.value == graph.by_path[path].output, what
        assert result.first.expected != result.first.got and what.startswith(path)
        earlier = list(result.by_value)[: list(result.by_value).index(result.first.value)]
        if path.startswith("encoder"):
            assert all(result.by_value[name][1] == 0 for name in earlier), "what comes before the fault agrees"
            assert result.first.utterance is not None


def test_the_fault_is_named_though_its_consequence_was_seen_in_a_value_that_is_listed_before_it():
    """A wrong logit makes a wrong token, so the embedding differs too, but later: the search calls them in turns."""
    module, front, features = tiny()
    bad, _ = plant(module.bind(), "joint.output")
    node = bad.by_path["joint.output"]
    louder = evolve(node, constants=dict(node.constants) | {"bias": node.constants["bias"] + np.arange(29) * (1 << 20)})
    result = compare(module, Reference(bad.with_nodes(tuple(louder if n.path == node.path else n for n in bad.nodes))),
                     front, features)
    assert result.first is not None and result.first.value == "joint.output" and result.different_transcripts
    assert list(result.by_value).index("prediction.embedding") < list(result.by_value).index("joint.output")
    assert result.by_value["prediction.embedding"][1] > 0


def test_a_fault_goes_only_where_there_is_something_to_change():
    graph = tiny()[0].bind()
    with pytest.raises(CompareError, match=r"`joint.combine` has neither weights nor biases"):
        plant(graph, "joint.combine")
    with pytest.raises(CompareError,
                       match=r"`encoder.lstm` is no layer of the model.*did you mean `encoder.lstm\[0\]`"):
        plant(graph, "encoder.lstm")


@pytest.mark.parametrize("engine", names())
def test_every_engine_has_the_planted_fault_or_says_that_it_has_not(small, engine):
    """The training module computed on as if nothing had been planted, and nothing differed."""
    subject = Subject.load(small.checkpoint)
    if engine == "rtl":
        pytest.skip("takes a simulator to be built: test_rtl.py")
    pytest.importorskip({"graphblas": "suitesparse_graphblas", "onnx": "onnxruntime"}.get(engine, "torch"))
    bad, _ = with_fault(subject, "encoder.lstm[0]")
    if engine == "torch":
        with pytest.raises(EngineError, match="not from a graph with a fault planted"):
            executor(engine, bad)
        return
    features = [np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)]
    found = compare(executor("reference", subject), executor(engine, bad), subject.front, features)
    assert found.first is not None and found.first.value == "encoder.lstm[0]"


def test_a_program_whose_encoder_makes_nothing_is_refused_by_whoever_runs_it(small):
    program = Program.load(small.program)
    entries = {n: evolve(e, outputs=()) if e.model_entry == "encoder" else e for n, e in program.entries.items()}
    mute = evolve(program, entries=entries)
    subject, features = Subject(compiled=mute), [np.zeros((9, 8), np.float32)]
    for run in (lambda: recognise(subject, features, 0.1, quiet=True),
                lambda: compare(executor("emulator", subject), executor("emulator", subject), subject.front,
                                features)):
        with pytest.raises(ProtocolError, match="`encoder` takes 1 values from outside and makes 0"):
            run()


def test_a_search_that_no_machine_holds_is_one_line(small, tmp_path, capsys):
    """It ended in a traceback, or went on without end."""
    run = ["run", str(small.program), "--audio", str(tmp_path / "a.wav"), "--search", "beam"]
    write_wav(tmp_path / "a.wav", np.zeros(8000, np.int16), 16000)
    assert main([*run, "--beam", "1000000"]) == 1
    assert "--beam 1,000,000: a search keeps 1,024 hypotheses at most" in capsys.readouterr().err
    for option in ("--max-symbols", "--nbest"):
        with pytest.raises(SystemExit):
            main([*run, option, "1000000"])


FUSED = Fusion((Sentences(1, 29), Sentences(2, 29)), (0.4, -0.3), internal=-0.2, bonus=0.1)


@pytest.mark.parametrize("how", [Beam(1), Beam(4, nbest=4), Beam(8, nbest=8, fusion=FUSED), Beam(3, 2, 2.0, 0.5, 3)],
                         ids=["1", "4", "8 fused", "3 narrow"])
def test_three_executors_give_the_same_nbest_lists_with_scores_and_times(how):
    module, front, features = tiny()
    graph = module.bind()
    program = compile_graph(graph, EDGE)
    for engine in (Reference(graph), Emulator(program)):
        result = compare(module, engine, front, features, batch=3, search=how)
        assert result.equal and result.different_nbest == 0 and result.first is None
        assert all(len(n) == how.nbest for n in result.nbest) and any(h.score for n in result.nbest for h in n)
    alone = compare(module, Reference(graph), front, features, batch=1, search=how)
    assert alone.nbest == result.nbest and alone.steps == result.steps, "nothing depends on who is in the batch"


def test_nbest_lists_that_differ_are_counted_though_the_texts_are_the_same():
    module, front, features = tiny()
    bad, _ = plant(module.bind(), "joint.output")
    result = compare(module, Reference(bad), front, features, search=Beam(4, nbest=4))
    assert result.different_nbest > 0 and not result.equal
