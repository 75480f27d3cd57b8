"""GraphBLAS computes the same integers as everybody: kernels by proof of their carrier, executors value by value, at
any density."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from attrs import evolve

pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")

from nnac import arith
from nnac.emulator.executor import Emulator
from nnac.executors import Subject, executor
from nnac.executors.graphblas import GraphBlas
from nnac.executors.reference import Reference
from nnac.executors.torch import Torch
from nnac.formats import Precision
from nnac.graphblas import layers
from nnac.graphblas import library as grb
from nnac.graphblas.kernel import Kernel, carrier, crossover, width
from nnac.graphblas.library import GraphBlasError, Matrix, library
from nnac.graphblas.weights import Weights
from nnac.lower import lower
from nnac.schedule.compile import compile_graph
from nnac.train.module import GraphModule
from tests.graphs import random_graph
from tests.schedules import EDGE
from tests.test_attention import conformer
from tests.test_executors import same_integers, trained
from tests.test_train_recurrent import model as recurrent_model


def pruned(rng, rows, cols, zeros, low=-127, high=128, dtype=np.int8):
    w = rng.integers(low, high, (rows, cols)).astype(dtype)
    w[rng.random(w.shape) < zeros] = 0
    return w


# ------------------------------------------------------------------------------------------------------------- kernels

@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("lead", [(1,), (2,), (7,), (3, 1), (2, 5), (0,), (2, 0)], ids=str)
def test_a_kernel_is_matmul_at_any_density_and_batch(zeros, lead):
    rng = np.random.default_rng(0)
    w = pruned(rng, 37, 21, zeros)
    for x in (rng.integers(-128, 128, (*lead, 21)), rng.integers(-32768, 32768, (*lead, 21))):
        for choice in ("auto", "graphblas", "dense"):
            got = Kernel(w, choice).product(x)
            assert got.dtype == np.int64 and got.shape == (*lead, 37) and (got == arith.matmul(x, w)).all(), choice


def test_the_carrier_changes_where_the_largest_sum_passes_what_it_holds():
    """1,023 weights of -127 meeting -128 sum to 16,629,888 < 2^24 = 16,777,216; 1,040 of them to more: FP32 would lose
    the last bit."""
    for cols, bits, dtype in ((1023, 8, np.float32), (1040, 8, np.float64), (3, 16, np.float32), (5, 16, np.float64)):
        w = np.full((2, cols), -127, np.int8)
        # an odd sum: beyond 2^24 only even numbers are left
        w[1, 0] = -126
        k = Kernel(w, "graphblas")
        assert carrier(k.bound(bits)) == dtype, (cols, bits)
        x = np.full((2, cols), -(1 << bits - 1))
        x[1] += 1
        assert (k.product(x) == x @ w.astype(np.int64).T).all()


def test_sums_that_no_type_holds_are_refused():
    with pytest.raises(GraphBlasError, match="no exact type"):
        carrier(1 << 53)
    w = np.full((1, 2), 1, np.int8)
    with pytest.raises(GraphBlasError, match="inputs of 64 bits"):
        Kernel(w, "graphblas").product(np.array([[1 << 40, 0]]))
    assert Kernel(w, "graphblas").product(np.array([[1 << 30, 1 << 30]])).tolist() == [[1 << 31]]


def test_width_is_that_of_the_integers_that_came():
    assert [width(np.array(v)) for v in ([127, -128], [128], [-129], [1 << 15], [])] == [8, 16, 16, 32, 8]


def test_the_choice_follows_density_and_batch():
    rng = np.random.default_rng(1)
    dense, thin = Kernel(pruned(rng, 64, 64, 0.2)), Kernel(pruned(rng, 64, 64, 0.9))
    assert dense.engine(64) == "dense" and thin.engine(64) == "graphblas" and thin.engine(1) == "dense"
    assert Kernel(dense.weight, "graphblas").engine(1) == "graphblas"
    assert all(crossover(a) <= crossover(b) for a, b in ((1, 4), (4, 8), (8, 16)))
    thin.product(np.zeros((64, 64), np.int64))
    assert thin.calls == {(64, "graphblas"): 1}


# ------------------------------------------------------------------------------------------------------------- library

def test_a_sparse_matrix_stays_sparse_even_when_every_entry_is_there():
    w = Matrix.of(np.ones((8, 8), np.float32))
    c = Matrix.full(np.zeros((8, 4), np.float32))
    grb.accumulate(c, [(w, Matrix.full(np.ones((8, 4), np.float32)))])
    assert w.state == "sparse" and w.count == 64 and (c.take() == 8).all()


@pytest.mark.parametrize(("rows", "cols", "density"), [(40, 300, 0.5), (7, 1000, 0.3), (300, 64, 0.9), (5, 200, 0.0)])
def test_strips_sum_to_the_matrix_and_the_transpose_is_it(rows, cols, density):
    rng = np.random.default_rng(rows)
    w = (rng.integers(1, 9, (rows, cols)) * (rng.random((rows, cols)) < density)).astype(np.float32)
    thin = Weights.of(w)
    assert (thin.turned.dense() == w.T).all() and thin.shape == w.shape
    for vectors in (1, 8, 64, 512):
        strips = thin.strips(vectors)
        assert len(strips) == thin.strip_count(vectors) <= max(1, cols // 64)
        assert (sum(s.dense() for s in strips) == w).all() and sum(s.count for s in strips) == np.count_nonzero(w)
        assert all(s.state in ("sparse", "hypersparse") for s in strips)
        y = rng.integers(-9, 9, (cols, vectors)).astype(np.float32)
        c = Matrix.full(np.ones((rows, vectors), np.float32))
        thin.accumulate(c, Matrix.full(y))
        assert (c.take() == w @ y + 1).all()
    assert thin.strip_count(8) == 1
    if density == 0.5:
        assert thin.strip_count(64) == 4, "150 entries a row would be 9 strips of 16, but none is under 64 columns wide"


def test_an_entry_takes_eight_bytes():
    """32-bit indices beside FP32 values, where the library has them."""
    w = Matrix.of(np.ones((256, 256), np.float32))
    assert w.size_bytes < 256 * 256 * (8.3 if hasattr(library().lib, "GxB_COLINDEX_INTEGER_HINT") else 12.3)


def test_rectifying_is_the_maximum_bit_for_bit():
    a = np.concatenate([np.random.default_rng(0).standard_normal(200).astype(np.float32) * np.float32(10.0)**k
                        for k in (-44, -38, -3, 0, 30)] + [np.array([0.0, -0.0, 1e38, -3e38], np.float32)])
    for dtype in (np.float32, np.float64):
        got = layers.rectified(Matrix.full(a[None], dtype)).take()
        assert (got == np.maximum(a, 0)).all() and not np.signbit(got).any()


def test_matrices_give_back_what_they_were_given():
    rng = np.random.default_rng(2)
    a = rng.standard_normal((5, 7)).astype(np.float32)
    assert (Matrix.full(a).take() == a).all() and (Matrix.full(a.T).take() == a.T).all()
    assert (Matrix.full(a).duplicate().dense() == a).all() and (Matrix.of(a * (a > 0)).dense() == a * (a > 0)).all()
    assert (Matrix.full(a, np.float64).duplicate().take() == a).all()
    assert (Matrix.full(np.zeros((3, 2), np.float32)).take(np.int64) == 0).all()
    assert Matrix.of(a).size_bytes >= 35 * 8


def test_operands_of_two_types_are_an_error_of_ours_not_a_slow_product():
    w, x, c = Matrix.of(np.ones((2, 2), np.float32)), Matrix.full(np.ones((2, 2))), Matrix.full(np.ones((2, 2),
        np.float32))
    with pytest.raises(AssertionError, match="float32, float64"):
        grb.accumulate(c, [(w, x)])


def test_what_the_library_refuses_is_one_line():
    w, x, c = (Matrix.full(np.ones(s, np.float32)) for s in ((2, 3), (2, 2), (2, 2)))
    with pytest.raises(GraphBlasError, match=r"^GraphBLAS, C \+= A B: dimension mismatch$"):
        grb.accumulate(c, [(w, x)])


def test_without_the_extra_one_clear_line_says_how_to_get_it():
    program = ("import sys; sys.modules['suitesparse_graphblas'] = None\n"
               "from nnac.executors import Subject, executor\nfrom nnac.errors import UserError\n"
               "from tests.graphs import random_graph\n"
               "try: executor('graphblas', Subject(bound=random_graph(size='tiny')))\n"
               "except UserError as e: print(e)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "SuiteSparse:GraphBLAS is not installed: pip install 'nnac[graphblas]'\n", done.stderr


def test_threads_wait_asleep_and_there_is_one():
    import os

    found = library().ffi.new("int32_t *")
    library().ok(library().lib.GrB_Global_get_INT32(library().lib.GrB_GLOBAL, found, library().lib.GxB_NTHREADS),
                 "threads")
    assert found[0] == 1 and os.environ["OMP_WAIT_POLICY"] == "passive"


# ----------------------------------------------------------------------------------------------------------- executors

SHAPES = [dict(), dict(bidirectional=True), dict(project=8), dict(combine="multiply")]


@pytest.mark.parametrize("choice", ["graphblas", "auto"])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("arguments", SHAPES, ids=str)
def test_every_value_and_state_is_the_references(arguments, zeros, choice):
    graph = random_graph(3, size="tiny", sparsity=zeros, **arguments)
    got = GraphBlas.of(graph, choice)
    for batch in (1, 3):
        assert same_integers(Reference(graph), got, graph, batch=batch, seed=batch) > 2_000
    used = {engine for _, k in got.kernels() for _, engine in k.calls}
    assert used == {"graphblas"} if choice == "graphblas" else used


@pytest.mark.parametrize("variant", ["acc32", "sum16"])
def test_sixteen_bit_activations_and_both_sums_of_an_lstm(variant):
    graph = random_graph(5, size="tiny", sparsity=0.75, precision=lambda p: Precision(
        activations=16, weights=8, variant=variant) if p.startswith("joint") else Precision(variant=variant))
    assert same_integers(Reference(graph), GraphBlas.of(graph, "graphblas"), graph) > 2_000


@pytest.mark.parametrize("arguments", SHAPES[:3], ids=str)
def test_the_machine_computes_what_graphblas_computes(arguments):
    graph = random_graph(7, size="tiny", sparsity=0.8, **arguments)
    assert same_integers(GraphBlas.of(graph, "graphblas"), Emulator(compile_graph(graph, EDGE)), graph,
                         taps=False) > 500


@pytest.mark.parametrize("arguments", SHAPES[:3], ids=str)
def test_the_training_module_computes_what_graphblas_computes(arguments):
    module = trained(**arguments)
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim == 2:
                p[torch.rand_like(p) < 0.8] = 0
    graph = module.bind()
    graph = evolve(graph, metadata=dict(graph.metadata, vocabulary=12))
    assert same_integers(Torch(module), executor("graphblas", Subject(bound=graph)), graph) > 2_000


@pytest.mark.parametrize("kind", ["gru", "lstm_coupled", "lstm_normed", "recurrence"])
def test_other_recurrent_layers_as_well(kind):
    torch.manual_seed(0)
    module = GraphModule(lower(recurrent_model(kind), lambda p: Precision(activations=16 if p == "net.output" else 8)))
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim == 2:
                p[torch.rand_like(p) < 0.7] = 0
    module.calibrate([torch.randn(20, 4, 10)], lambda x: module.run(
        "encoder", dict(features=x), dict(features=False), module._state("encoder", x.shape[1], x)))
    graph = module.bind()
    assert same_integers(Reference(graph), GraphBlas.of(graph, "graphblas"), graph) > 500


def test_a_conformer_as_well():
    """... whose depthwise kernels are no matrices."""
    graph = conformer(1, blocks=1, chunk=2, left=4, kernel=5, positions=24)
    assert same_integers(Reference(graph), GraphBlas.of(graph, "graphblas"), graph, steps=3) > 5_000


def test_rows_of_different_length_under_a_bidirectional_encoder():
    graph, rng = random_graph(9, size="tiny", sparsity=0.9, bidirectional=True), np.random.default_rng(0)
    name, = graph.inputs["encoder"]
    x, lengths = rng.integers(-128, 128, (6 * graph.values[name].rate, 3, graph.values[name].width)), np.array([6, 1,
        4])
    one, two = (e.run("encoder", {name: x}, e.initial_state("encoder", 3), lengths=lengths)[0]
                for e in (Reference(graph), GraphBlas.of(graph, "graphblas")))
    assert all((one[k] == two[k]).all() for k in one)


def test_choices_name_every_kernel_once_with_what_multiplies_it():
    rows = GraphBlas.of(random_graph(1, size="tiny", sparsity=0.95)).choices()
    assert len({r["kernel"] for r in rows}) == len(rows) == 9 and all(r["density"] < 0.15 for r in rows)
    assert {r["batch 1"] for r in rows} == {"dense"} and {r["batch 64"] for r in rows} == {"graphblas"}
    assert "prediction.embedding.weight" not in {r["kernel"] for r in rows}, "an embedding multiplies nothing"


# ----------------------------------------------------------------------------------------------- layers of real numbers

def real_layer(m=40, n=6, density=0.1, sign=-1.0, seed=0):
    """(W dense [m, m] with some rows empty, Y [m, n] >= 0, b [m] of one sign)."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((m, m)).astype(np.float32) * (rng.random((m, m)) < density)
    w[::5] = 0
    return w, np.abs(rng.standard_normal((m,
        n))).astype(np.float32), (sign * np.abs(rng.standard_normal(m))).astype(np.float32)


def every_form(w, y, b):
    g, thin, wide = Matrix.of(w), Weights.of(w), np.repeat(b[:, None], y.shape[1], 1)
    gy, gb, zero = Matrix.full(y), Matrix.full(wide), Matrix.full(np.zeros_like(wide))
    columns = [layers.fused_vector(thin, Matrix.full(y.T[k:k + 1]), Matrix.full(b[None])).take()[0]
               for k in range(y.shape[1])]
    return dict(paper=layers.paper(g, gy, gb, zero).dense(), lagraph=layers.lagraph(g, gy, layers.diagonal(b)).dense(),
                fused=layers.fused(thin, gy, gb).dense(), fused_vector=np.stack(columns, 1))


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_every_form_of_a_layer_is_the_layer_where_biases_are_negative(density):
    w, y, b = real_layer(density=density)
    expected = np.maximum(w @ y + b[:, None], 0)
    for name, got in every_form(w, y, b).items():
        assert np.allclose(got, expected, atol=1e-5), name


def test_a_positive_bias_where_no_sum_is_found_only_by_the_fused_form():
    """The trap of the paper's form and of LAGraph's: rows 0, 5, 10 … have no weights, so their bias meets no entry."""
    w, y, b = real_layer(sign=1.0)
    expected, empty = np.maximum(w @ y + b[:, None], 0), ~w.any(1)
    made = every_form(w, y, b)
    for name in ("fused", "fused_vector"):
        assert np.allclose(made[name], expected, atol=1e-5), name
    for name in ("paper", "lagraph"):
        assert np.allclose(made[name][~empty], expected[~empty], atol=1e-5) and (made[name][empty] == 0).all(), name
    assert (expected[empty] > 0).all()


@pytest.mark.parametrize("method", ["csp", "magnitude"])
def test_masks_of_a_pruned_model_are_the_entries_of_its_matrices(method):
    from nnac.lower import lower_plan
    from nnac.policy import loads
    from nnac.train.families.rnnt import Transducer
    from nnac.train.schedule import Compression

    plan = loads('import "targets/edge.nnac"\npolicy p {\n  model rnnt(size="tiny")\n  target edge\n'
                 "  layers ** { weights int8 per_channel; activations int8 minmax }\n"
                 "  layers joint.{encoder, prediction, combine, output} { activations int16 }\n"
                 f"  layers encoder.lstm[*] {{ sparsity {method}(75%, from=0 steps, to=1 steps) }}\n  training "
                 f"{{ steps 1k steps }}\n}}").plan
    torch.manual_seed(0)
    module = Transducer(lower_plan(plan), None, plan)
    schedule = Compression(module, steps=1000)
    for step in (1, 2):
        schedule.on_step(step)
    module.calibrate([(torch.randn(40, 3, 8), torch.tensor([40, 33, 20]), torch.zeros(4, 3, dtype=torch.long))])
    graph = module.eval().bind()
    found = {name: k for name, k in GraphBlas.of(graph, "graphblas").kernels() if name.startswith("encoder.lstm")}
    assert len(found) == 4
    for name, k in found.items():
        assert k.sparse(np.dtype(np.float32)).turned.count == np.count_nonzero(k.weight), name
        assert 0.15 < k.density <= 0.26, name
    graph = evolve(graph, metadata=dict(graph.metadata, vocabulary=12))
    assert same_integers(Torch(module), GraphBlas.of(graph, "graphblas"), graph) > 2_000


def test_explain_shows_what_multiplies_each_kernel_of_a_checkpoint(tmp_path, capsys):
    from nnac.cli import main
    from nnac.decode.front_end import FrontEnd
    from nnac.lower import lower_plan
    from nnac.policy import loads
    from nnac.speech.features import FeatureSpec, Normalisation
    from nnac.speech.tokens import LETTERS
    from nnac.train.families.rnnt import Transducer
    from nnac.train.policy import save_module

    plan = loads('import "targets/edge.nnac"\npolicy p {\n'
                 f'  model rnnt(size="tiny", vocabulary={LETTERS.count})\n  target edge\n'
                 "  layers ** { weights int8 per_channel; activations int8 minmax }\n"
                 "  layers joint.{encoder, prediction, combine, output} { activations int16 }\n}").plan
    module, x = Transducer(lower_plan(plan), None, plan), torch.randn(40, 3, 8)
    module.calibrate([(x, torch.tensor([40, 33, 20]), torch.zeros(4, 3, dtype=torch.long))])
    file = str(tmp_path / "m.nnc")
    save_module(file, module.eval(), plan, FrontEnd(FeatureSpec(bins=8), Normalisation.of(x.reshape(-1, 8).numpy()),
                                                    LETTERS), {})
    assert main(["explain", file, "--engine", "graphblas", "--json"]) == 0
    assert '"kernel": "encoder.lstm[0].input"' in capsys.readouterr().out
    assert main(["explain", file, "--engine", "graphblas"]) == 0
    shown = capsys.readouterr().out
    assert "encoder.lstm[0].input" in shown and "batch 64" in shown and "%" in shown
    assert main(["explain", file, "--engine", "reference"]) == 1
    assert capsys.readouterr().err == "nnac: the engine `reference` has nothing to choose; graphblas has\n"
