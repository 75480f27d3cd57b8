"""Policies from training to the emulator: those of the papers and of the comparison, and any others that the linter
lets pass."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

import nnac
from nnac.compare import compare, compare_labels
from nnac.compression.narang import Narang
from nnac.decode.front_end import FrontEnd
from nnac.emulator.executor import Emulator
from nnac.executors.torch import Torch
from nnac.language.check import check_file, check_text
from nnac.lower import lower_plan
from nnac.program import Program
from nnac.schedule.budget import measured
from nnac.schedule.compile import Settings, compile_graph
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens
from nnac.train.families.lm import LanguageModel
from nnac.train.families.rnnt import Transducer
from nnac.train.module import ScaleError
from nnac.train.schedule import Compression
from tests.language_policies import small_policies
from tests.test_train_module import data, differences, train_step

FOLDERS = ("specs/papers", "specs/comparison")
SHAPE = "cells=16, embedding=8, prediction_cells=16, joint=16, vocabulary=29"
SYMBOLS = " abcdefghijklmnopqrstuvwxyz'0123456789.,!?-:;"
# training steps taken, spread evenly over those that the policy asks for
MOMENTS = 20


def policies(builder):
    """Each policy of each file for a family of models, with each value of what it sweeps: [file, name, what is swept,
    size of its model]."""
    for folder in FOLDERS:
        for file in sorted(Path(folder).glob("*.nnac")):
            for r in (r for r in check_file(file).resolutions if r.plan.model.builder == builder):
                name, _, swept = r.plan.name.rstrip("]").partition("[")
                yield pytest.param(file, name, swept, r.plan.model.arguments["size"],
                                   id=f"{file.parent.name}/{file.stem}:{r.plan.name}")


@pytest.mark.parametrize("file,name,swept,size", list(policies("rnnt")))
def test_what_a_published_policy_trains_is_what_its_program_computes(file, name, swept, size, tmp_path):
    text = (f'import "{file}"\n'
            f'policy small extends {name} {{ model rnnt(size="{size}", {SHAPE}); budget {{ bits_per_weight <= 32 }} }}')
    plan = nnac.loads(text, "small", **dict(s.split("=") for s in swept.split(", ") if s)).plan
    assert plan.training.total % MOMENTS == 0, "events of a schedule fall on round numbers"
    module = trained(plan, range(0, plan.training.total + 1, plan.training.total // MOMENTS))
    features, _, targets = data(module, 2)
    assert differences(module, features, targets)[1] == 0
    promised(plan, module)
    same_on_the_machine(plan, module, tmp_path, (31, 18))


@pytest.mark.parametrize("file,name,swept,size", list(policies("lm")))
def test_what_a_policy_of_language_models_trains_is_what_its_program_computes(file, name, swept, size):
    plan = nnac.loads(f'import "{file}"\npolicy small extends {name} '
                      f'{{ model lm(size="{size}", cells=16, embedding=8, vocabulary=29) }}', "small").plan
    torch.manual_seed(0)
    module = LanguageModel(lower_plan(plan), None, plan)
    labels, counts = torch.randint(1, 29, (9, 5)), torch.full((5,), 9)
    module.calibrate([(labels,)])
    compression = Compression(module, plan.training.total, learning_rate=1e-3)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    for step in range(1, 4):
        compression.on_step(step)
        optimiser.zero_grad()
        (module.loss(module.train()(labels), labels, counts) + compression.regulariser()).backward()
        optimiser.step()
    compression.finish()
    promised(plan, module.eval())
    program = compile_graph(module.bind(), plan.target, Settings.of(plan))
    done = compare_labels(Torch(module), Emulator(program), labels.T.tolist())
    assert not done.different and done.compared > 3_000


@pytest.mark.slow
def test_the_four_bit_rnnt_of_57_million_weights_fits_its_budget_and_computes_what_training_saw(tmp_path):
    plan = nnac.load("specs/papers/int4_rnnt.nnac", "int4_rnnt").plan
    module = trained(plan, [1])
    program, result = same_on_the_machine(plan, module, tmp_path, (12, 7))
    weights = sum(k["weights"] for k in program.report["layers"].values())
    print(f"{weights:,} weights, {measured(program)['bits_per_weight']:.2f} bits each, {result.compared:,} integers "
          f"compared")
    assert 56e6 < weights < 58e6 and (tmp_path / "program.nnp").stat().st_size < 30 << 20


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow,
                                                                                   HealthCheck.filter_too_much])
@given(small_policies())
def test_whatever_the_linter_lets_pass_trains_compiles_and_computes_the_same(text):
    checked = check_text(text)
    assume(not checked.errors)
    plan = checked.resolutions[0].plan
    # real weights are no integers to compare
    assume(all(s.weights is None or s.weights.method is not None for s in plan))
    try:
        module = trained(plan, range(0, plan.training.total + 1, plan.training.total // 6))
    except ScaleError:                        # what only data tell: a clip of 10,000 for weights of 0.1
        return
    features, _, targets = data(module, 2)
    assert differences(module, features, targets)[1] == 0
    with tempfile.TemporaryDirectory() as folder:
        same_on_the_machine(plan, module, Path(folder), (31, 18))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(small_policies())
def test_many_policies_that_the_linter_lets_pass_compute_the_same(text):
    test_whatever_the_linter_lets_pass_trains_compiles_and_computes_the_same.hypothesis.inner_test(text)


def same_on_the_machine(plan, module, folder, lengths):
    """(program, comparison) of the module and its program's file, on utterances of so many frames: all integers are
    equal."""
    width = module.graph.values["features"].width
    rng = np.random.default_rng(0)
    speech = [rng.standard_normal((n, width)).astype(np.float32) for n in lengths]
    tokens = Tokens(SYMBOLS[:plan.graph.by_path["joint.output"].width - 1])
    front = FrontEnd(FeatureSpec(bins=width), Normalisation.of(np.concatenate(speech)), tokens)
    compile_graph(module.bind(), plan.target, Settings.of(plan)).save(folder / "program.nnp")
    program = Program.load(folder / "program.nnp")
    result = compare(module, Emulator(program), front, speech)
    assert result.equal and result.compared > 1_000
    return program, result


def trained(plan, moments):
    """A module after steps at these moments of the whole training: annealing, ramps, masks and hard compressions all
    come to pass."""
    torch.manual_seed(0)
    module = Transducer(lower_plan(plan), None, plan)
    module.calibrate([data(module, 1)])
    compression = Compression(module, plan.training.total, learning_rate=1e-3)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    for step in filter(None, moments):
        train_step(module, compression, optimiser, data(module, step), step)
    compression.finish()
    return module.eval()


def promised(plan, module):
    """The codes of each kernel: no more different ones in a row of one gate than the policy's bits allow, and as many
    zeros as it asks for."""
    graph = module.bind()
    for site in plan:
        if site.kind != "kernel" or site.weights is None or not site.weights.method:
            continue
        layer, _, kernel = site.path.rpartition(".")
        node = graph.by_path.get(layer)
        if node is None or kernel not in node.constants or node.op == "embedding":
            continue
        codes = node.constants[kernel]
        gates = plan.gates(site.path)
        for gate, rows in zip(gates, np.split(codes, len(gates)), strict=True):
            for row in rows:
                assert len(np.unique(row)) <= 1 << gate.weights.bits, (f"{gate.path}: {len(np.unique(row))} codes in "
                                                                       f"a row")
        if site.sparsity is not None:
            share = float(site.sparsity.target)
            # a ramped threshold does not count; a block is 1/64 here
            within = 0.2 if isinstance(site.sparsity, Narang) else 0.1
            assert abs((codes == 0).mean() -
                       share) < within, f"{site.path}: {(codes == 0).mean():.0%} zero, not {share:.0%}"
