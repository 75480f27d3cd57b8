"""Attention, convolution and their rings: against slow and obvious oracles; step by step as all at once; on the machine
as in the graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from nnac import arith, bind
from nnac.evaluate import evaluate, initial_state
from nnac.formats import SCORE, Precision
from nnac.isa import LN, SMAX, decode_all
from nnac.lower import lower
from nnac.model import build
from nnac.ops._ring import windows
from nnac.schedule.compile import Settings, compile_graph
from nnac.train import native, native_layers
from nnac.train.families import module_of
from nnac.train.integers import Rescale
from tests.graphs import bind_randomly, random_graph, random_inputs
from tests.schedules import EDGE, LARGE, TINY, compare

EXP, RSQRT = arith.exp_table().entries.astype(np.int64), arith.rsqrt_table()


# -------------------------------------------------------------------------------- oracles, number by number

def rounded(x: int, shift: int) -> int:
    return (x + (1 << shift - 1)) >> shift


def test_scores_are_sums_with_a_bias_limited_to_15_bits_and_the_least_where_no_key_is():
    rng = np.random.default_rng(0)
    q, k, bias = rng.integers(-128, 128, (3, 8)), rng.integers(-128, 128, (5, 8)), rng.integers(-9999, 9999, (3, 5))
    there, m, s = rng.integers(0, 3, (3, 5)).clip(0, 1), 9000, 13
    expected = [[max(-16384, min(16383, rounded((sum(int(a) * int(b) for a, b in zip(q[c], k[r], strict=True))
                                                 + int(bias[c, r])) * m, s))) if there[c, r] else -32768
                 for r in range(5)] for c in range(3)]
    assert arith.attention_scores(q, k, bias, there, m, s).tolist() == expected
    tensors = [torch.as_tensor(v) for v in (q, k, bias, there)]
    assert arith.attention_scores(*tensors, m, s).tolist() == expected
    assert len(np.unique(expected)) > 6


@pytest.mark.parametrize("bits", [8, 16])
def test_a_key_that_is_not_there_has_no_probability_whatever_the_others_say(bits):
    c = bind.softmax(SCORE.scale, 1 / ((1 << bits - 1) - 1))
    for score in (-16384, 0, 16383):
        p = arith.softmax(np.array([score, -32768, score, -32768]), EXP, RSQRT, int(c["multiplier"]), int(c["shift"]),
                          int(c["out_multiplier"]), int(c["out_shift"]), 0, bits)
        half = ((1 << bits - 1) - 1) / 2
        assert p[1] == p[3] == 0 and abs(p[0] - half) <= 1 and p[0] == p[2]


def test_gate_is_swish_of_one_value_and_glu_of_two():
    x = np.arange(-32768, 32768, 17)
    sigmoid = arith.sigmoid_table().entries.astype(np.int64)
    c = bind.gate(8 / 127)
    y = arith.gate(x, x[::-1], sigmoid, "complement", int(c["multiplier"]), int(c["shift"]), 0, 8)
    real = x / 4096 / (1 + np.exp(-x[::-1] / 4096))
    assert np.abs(y - (real / (8 / 127)).clip(-128, 127)).max() < 0.51


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 9), st.integers(0, 10**6))
def test_a_ring_shows_the_last_rows_oldest_first_however_often_it_went_round(slots, chunk, steps, seed):
    """Against a list that never forgets."""
    rng = np.random.default_rng(seed)
    ring, count, seen = np.zeros((1, slots * chunk * 4), np.int64), np.zeros((1, 1), np.int64), []
    for _ in range(int(rng.integers(1, 4))):
        x = rng.integers(-128, 128, (steps * chunk, 1, 4))
        if not steps:
            continue
        made, known, count, ring = windows(x, count, ring, slots, chunk)
        for n in range(steps):
            seen += x[n * chunk:(n + 1) * chunk, 0].tolist()
            old = min(len(seen) // chunk, slots)
            assert known[n].item() == old
            assert made[n, 0, (slots - old) * chunk:].tolist() == seen[-old * chunk:]
            assert not made[n, 0, : (slots - old) * chunk].any()
        assert 0 <= count.item() < 2 * slots
        place = (count.item() - 1) % slots                             # of the newest chunk
        rows = ring.reshape(slots * chunk, 4)
        assert rows[place * chunk:(place + 1) * chunk].tolist() == seen[-chunk:]


# -------------------------------------------------------------------------------- one graph, three readings

def conformer(seed: int = 0, probabilities: int = 8, **arguments):
    """A small Conformer with random weights; sums in int16."""
    def precision(path: str) -> Precision:
        wide = path.endswith(".sum") or (probabilities == 16 and path.endswith(".probabilities"))
        return Precision(activations=16 if wide else 8)

    return random_graph(seed, model="conformer", precision=precision, **dict(size="tiny") | arguments)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([(1, 8), (2, 4), (4, 8), (8, 8), (3, 6)]), st.sampled_from([8, 16]), st.integers(1, 9),
       st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 10**6))
def test_step_by_step_through_rings_is_the_whole_sequence_bit_for_bit(context, probabilities, kernel, pieces, seed):
    """... and so are pieces of any number of chunks, with states that others continue."""
    chunk, left = context
    graph = conformer(seed, probabilities, blocks=1, chunk=chunk, left=left, kernel=kernel, positions=24)
    steps = sum(pieces)
    x = random_inputs(graph, "encoder", np.random.default_rng(seed), steps, 2)
    whole, end = evaluate(graph, "encoder", x)
    (name, v), = x.items()
    rate = graph.values[name].rate
    for sizes in (pieces, [1] * steps):
        state, made, at = initial_state(graph, 2), [], 0
        for n in sizes:
            out, state = evaluate(graph, "encoder", {name: v[at:at + n * rate]}, state)
            made.append(out["joint.encoder"])
            at += n * rate
        assert np.array_equal(np.concatenate(made), whole["joint.encoder"])
        assert all(np.array_equal(state[k], end[k]) for k in end)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([(1, 8), (2, 4), (4, 8), (3, 6)]), st.sampled_from([8, 16]), st.integers(0, 10**6))
def test_the_training_module_computes_the_same_integers_and_a_gradient_for_every_weight(context, probabilities, seed):
    torch.manual_seed(seed)
    plan = lower(build("conformer", size="tiny", blocks=1, chunk=context[0], left=context[1], positions=24),
                 lambda path: Precision(activations=16 if path.endswith(".sum") or (
                     probabilities == 16 and path.endswith(".probabilities")) else 8))
    module = module_of("conformer")(plan)
    torch.nn.init.normal_(module.layer("encoder.block[0].attention.scores").position, 0, 0.5)
    x, lengths = torch.randn(plan.values["features"].rate * 5 - 3, 3, 8), torch.tensor([37, 31, 12])
    targets = torch.randint(1, 12, (3, 3))
    module.calibrate([(x, lengths, targets)])
    seen: dict[str, np.ndarray] = {}
    with module.watching(lambda n, v: seen.__setitem__(n, v.detach().long().numpy())):
        frames, _ = module.encode(x, lengths)
    frames.square().sum().backward()
    graph = module.bind()
    expected: dict[str, np.ndarray] = {}
    evaluate(graph, "encoder", dict(features=seen["features"]), watch=expected.__setitem__)
    assert expected.keys() == seen.keys() - {"features"}
    for name, v in expected.items():
        assert np.array_equal(v, seen[name]), name
    # a bias of all keys alike changes no probability: its gradient may be anything about zero
    silent = [n for n, p in module.named_parameters() if n.startswith(("encoder.", "joint.encoder")) and (
        p.grad is None or not p.grad.any())]
    assert not silent


def test_the_gradient_is_that_of_the_float_network():
    """Of integers so fine that rounding hardly matters: every width 16 where it may be."""
    torch.manual_seed(0)
    graph = lower(build("conformer", size="tiny", blocks=1, kernel=3), lambda path: Precision(activations=16 if not
                  path.endswith((".query", ".key", ".value", ".glu")) else 8, weights=16 if "depthwise" not in path
                  else 8))
    module = module_of("conformer")(graph)
    x, lengths = torch.randn(40, 3, 8), torch.tensor([40, 40, 40])
    module.calibrate([(x, lengths, torch.randint(1, 12, (3, 3)))])

    def gradients() -> dict[str, torch.Tensor]:
        module.zero_grad()
        module.eval()
        frames, _ = module.encode(x, lengths)
        if module.layer("joint.encoder").quantised:
            frames = frames * module.formats()["joint.encoder"].scale
        frames.tanh().sum().backward()
        return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None and "quantiser" not in n}

    exact = gradients()
    with module.real_numbers():
        real = gradients()
    assert exact.keys() == real.keys()
    for name, g in real.items():
        if float(g.norm()) > 1e-4:
            assert float(torch.cosine_similarity(exact[name].flatten(), g.flatten(), 0)) > 0.97, name


# -------------------------------------------------------------------------------- machine

@pytest.mark.parametrize("target", [EDGE, TINY, LARGE], ids=lambda t: t.name)
@pytest.mark.parametrize("context", [(1, 8), (2, 4), (4, 8)], ids=str)
def test_a_conformer_runs_on_the_machine_with_the_integers_of_the_graph(context, target):
    chunk, left = context
    graph = conformer(chunk, 8 if chunk > 1 else 16, blocks=1, chunk=chunk, left=left, kernel=7, positions=24)
    program = compile_graph(graph, target, Settings())
    assert not program.host, "everything has instructions"
    compared, different = compare(graph, program, calls=7)             # the ring goes round
    assert compared and not different
    assert program.entries["encoder.step"].steps == 1


def test_the_state_of_an_utterance_is_saved_and_brought_back():
    from nnac.emulator.machine import Machine

    graph = conformer(3)
    machine = Machine(compile_graph(graph, EDGE, Settings()), batch=1)
    rng = np.random.default_rng(0)
    x = [random_inputs(graph, "encoder", rng) for _ in range(6)]
    outputs = [machine.run("encoder.step", v)["joint.encoder"] for v in x[:3]]
    saved = machine.state()
    machine.reset()
    again = [machine.run("encoder.step", v)["joint.encoder"] for v in x[:3]]
    assert np.array_equal(outputs, again)
    machine.run("encoder.step", x[5])
    machine.load_state(saved)
    _, state = evaluate(graph, "encoder", {k: np.concatenate([v[k] for v in x[:3]]) for k in x[0]})
    assert np.array_equal(machine.run("encoder.step", x[3])["joint.encoder"],
                          evaluate(graph, "encoder", x[3], state)[0]["joint.encoder"])


def test_a_count_that_no_ring_has_is_an_error_not_a_wrong_row():
    from nnac.emulator.errors import DataError
    from nnac.emulator.machine import Machine
    from nnac.isa import HALT, KEEP

    m = Machine([KEEP(src=512, ring=0, bytes=8, chunk=2, slots=3), HALT()], fast=False)
    for count, message in ((6, "6, not in 0 … 5"), (-1, "-1, not in 0 … 5")):
        m.memories.a[0, :4] = np.frombuffer(np.int32(count).tobytes(), np.uint8)
        with pytest.raises(DataError, match=f"the count of a ring is {message}"):
            m.run()


def test_the_core_refuses_instructions_that_it_has_not(monkeypatch):
    params = pytest.importorskip("nnac.rtl.params", reason="the core is described in Amaranth (extra rtl)")
    from nnac.isa import HALT
    from nnac.isa.ring import KEEP
    from nnac.isa.text import Assembly
    from nnac.rtl.machine import CoreFault
    from nnac.rtl.program import ProgramOnCore

    monkeypatch.setattr(params, "BUILT", tuple(cls for cls in params.BUILT if cls is not KEEP))
    program = Assembly({"main": (KEEP(src=512, ring=0, bytes=8, chunk=2, slots=3), HALT())})
    with pytest.raises(CoreFault, match=r"main \[0\]: the core has no KEEP; the emulator runs this program"):
        ProgramOnCore(program)


def test_a_program_has_one_table_of_1_over_sqrt_whatever_norms_and_softmaxes_there_are():
    program = compile_graph(random_graph(0, model="conformer", size="tiny"), EDGE, Settings())
    code = [i for e in program.entries.values() for i in decode_all(e.words.tobytes())]
    readers = [i for i in code if isinstance(i, (LN, SMAX))]
    assert {type(i) for i in readers} == {LN, SMAX} and len({i.roots for i in readers}) == 1 < len(readers)
    assert program.dram.tobytes().count(RSQRT.astype("<u2").tobytes()) == 1


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_stateless_prediction_network_knows_its_last_labels_everywhere_alike(labels):
    """Float network, training module, graph and machine."""
    from nnac.emulator.machine import Machine
    from nnac.model.conformer_torch import Conformer, ConformerConfig

    torch.manual_seed(labels)
    sizes = dict(width=16, blocks=1, heads=2, feed=24, chunk=2, left=4, positions=16)
    net = Conformer(ConformerConfig(features=8, stack=2, kernel=4, embedding=8, prediction=16, joint=16, vocabulary=12,
                                    stateless=labels, **sizes)).eval()
    model = build("conformer", size="tiny", stateless=labels, **sizes)
    graph = lower(model, lambda path: Precision(activations=16 if path.endswith(".sum") else 8))
    module = module_of("conformer")(graph, net.state_dict())
    tokens = torch.arange(21).view(7, 3) % 11 + 1
    with torch.no_grad(), module.real_numbers():
        expected = net.predictions(tokens)
        assert torch.allclose(module.predictions(tokens), expected, atol=1e-6)
        # step by step, and what came before the last labels does not matter
        y, state = net.start(3)
        for t, made in enumerate(expected):
            assert torch.allclose(y, made, atol=1e-6)
            y, state = net.predict(tokens[min(t, 6)], state)
        other = torch.cat([tokens[:7 - labels].flip(1), tokens[7 - labels:]])
        assert torch.equal(net.predictions(other)[-1], expected[-1])
        assert not torch.equal(net.predictions(tokens.flip(1))[-1], expected[-1])
    module.calibrate([(torch.randn(40, 3, 8), torch.full((3,), 40), tokens)])
    graph = module.bind()
    program = compile_graph(graph, EDGE, Settings(hypotheses=4))
    assert not program.host
    other = conformer(labels, blocks=1, stateless=labels)
    assert compare(other, compile_graph(other, TINY, Settings(hypotheses=4)), calls=7)[1] == 0
    with torch.no_grad():
        whole = module.predictions(tokens)
        y, state = module.start(3)
        machine = Machine(program, batch=3)
        ints = [np.zeros((1, 3, 1), np.int64), *tokens.numpy()[:, None, :, None]]
        for t, label in enumerate(ints):
            made = machine.run("prediction.step", {"label": label})["joint.prediction"][0]
            assert np.array_equal(made, whole[t].numpy()) and torch.equal(y, whole[t])
            if t < 7:
                y, state = module.predict(tokens[t], state)


# -------------------------------------------------------------------------------- float network

def test_the_float_network_and_the_graph_in_real_numbers_are_one():
    from nnac.model.conformer_torch import Conformer, ConformerConfig

    torch.manual_seed(0)
    sizes = dict(width=16, blocks=2, heads=2, feed=24, chunk=2, left=4, positions=16)
    net = Conformer(ConformerConfig(features=8, stack=2, kernel=4, embedding=8, prediction=16, joint=16, vocabulary=12,
                                    **sizes)).eval()
    for block in net.encoder.block:
        torch.nn.init.normal_(block.attention["scores"].position)
    graph = lower(build("conformer", size="tiny", **sizes), lambda path: Precision())
    module = module_of("conformer")(graph, net.state_dict())
    x, lengths = torch.randn(51, 3, 8), torch.tensor([51, 34, 9])
    for b, n in enumerate(lengths):
        x[n:, b] = 0
    with torch.no_grad(), module.real_numbers():
        (expected, n), (got, m) = net.encode(x, lengths), module.encode(x, lengths)
    assert n.tolist() == m.tolist() == [12, 8, 2] and got.shape == expected.shape
    for b, k in enumerate(n):
        assert torch.allclose(got[:k, b], expected[:k, b], atol=1e-5)
        alone, _ = net.encode(x[: lengths[b], b:b + 1], lengths[b:b + 1])
        assert torch.allclose(alone[:, 0], expected[:k, b], atol=1e-5), "an utterance is heard alike in every batch"


def test_training_draws_chunk_and_left_context_and_evaluation_does_not():
    from nnac.model.conformer_torch import Conformer

    net = Conformer()
    drawn = {net.encoder.context() for _ in range(200)}
    assert drawn == {(c, n) for c in (1, 2, 4, 8) for n in (8, 16, 32)}
    assert {net.eval().encoder.context() for _ in range(20)} == {(4, 16)}


def test_scores_of_16_bits_are_closer_to_the_real_attention():
    """Eight bits of probability are enough for short contexts; sixteen are closer."""
    rng = np.random.default_rng(0)
    scores, values = rng.standard_normal((64, 33)) * 2, rng.integers(-127, 128, (33, 8))
    real = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True) @ values
    error = {}
    for bits in (8, 16):
        c = bind.softmax(SCORE.scale, 1 / ((1 << bits - 1) - 1))
        p = arith.softmax(np.floor(scores / SCORE.scale + 0.5).astype(np.int64), EXP, RSQRT, int(c["multiplier"]),
                          int(c["shift"]), int(c["out_multiplier"]), int(c["out_shift"]), 0, bits)
        error[bits] = np.abs(p @ values / ((1 << bits - 1) - 1) - real).mean()
    assert error[16] < 0.1 < error[8] < 1.5


def test_only_a_conformer_has_a_stateless_prediction_network_and_none_is_trained_with_batch_norm(capsys, tmp_path):
    from nnac.cli import main
    from nnac.model.conformer_torch import ConformerConfig
    from nnac.train.baseline import TrainConfig, task
    from nnac.train.loop import TrainingError, read_job

    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.json").write_text("{}")
    base = ["baseline", "--corpus", str(tmp_path / "c"), "--out", str(tmp_path / "x.nnc"), "--stateless", "2"]
    assert main(base) == 2 and "of a Conformer: say --model conformer" in capsys.readouterr().err
    job = str(tmp_path / "job.json")
    assert main([*base, "--model", "conformer", "--job", job]) == 0
    assert read_job(job)[0].config.model == ConformerConfig(stateless=2)
    with pytest.raises(TrainingError, match="batch norm"):
        task(tmp_path, tmp_path / "x", TrainConfig(model=ConformerConfig(norm="batch")))


def test_a_batch_norm_is_in_the_convolution_before_it():
    from nnac.model.conformer_torch import Conformer, ConformerConfig

    torch.manual_seed(0)
    sizes = dict(width=16, blocks=2, heads=2, feed=24, chunk=2, left=4, positions=16)
    net = Conformer(ConformerConfig(features=8, stack=2, kernel=4, embedding=8, prediction=16, joint=16, vocabulary=12,
                                    norm="batch", **sizes))
    x, lengths, targets = torch.randn(48, 3, 8), torch.full((3,), 48), torch.randint(1, 12, (3, 3))
    for block in net.encoder.block:
        middle = block.convolution["middle"]
        for p in (middle.weight, middle.bias, middle.running_mean):
            torch.nn.init.normal_(p, 0.5, 0.5)
        torch.nn.init.uniform_(middle.running_var, 0.1, 2.0)
    net.eval()
    graph = lower(build("conformer", size="tiny", norm="batch", **sizes),
                  lambda path: Precision(activations=16 if path.endswith(".sum") else 8))
    module = module_of("conformer")(graph, net.state_dict())
    assert not any(n.path.endswith(".middle") for n in graph.nodes)
    with torch.no_grad(), module.real_numbers():
        assert torch.allclose(module.encode(x, lengths)[0], net.encode(x, lengths)[0], atol=2e-5)
    module.calibrate([(x, lengths, targets)])
    bound = evolve(module.bind(), metadata=random_graph(0, model="conformer", size="tiny").metadata)
    assert compare(bound, compile_graph(bound, TINY, Settings()), calls=5)[1] == 0


@pytest.mark.skipif(native.library() is None, reason="no C compiler, so no native functions")
@pytest.mark.parametrize("seed", range(4))
def test_native_functions_are_those_of_the_arithmetic(seed):
    """On integers of every size, the extremes among them."""
    rng = np.random.default_rng(seed)
    bits = (8, 16, 8, 16)[seed]
    low, high = arith.limits(bits)
    x = rng.integers(low, high + 1, (7, 33)) >> rng.integers(0, bits, (7, 1))
    x[0], x[1, ::2] = low, high
    c = {k: torch.as_tensor(np.asarray(v).astype(np.int64))
         for k, v in bind.layer_norm(rng.standard_normal(33), rng.standard_normal(33), 1e-5, 0.01, 0.02).items()}
    expected = arith.layer_norm(x, *(c[k].numpy() for k in ("gain", "bias", "epsilon", "root_width", "rsqrt",
                                                            "multiplier", "shift")), -3, 32)
    y, inside = native.layer_norm(torch.as_tensor(x).float(), native.Norm.of(c), -3, 8)
    assert np.array_equal(y.numpy(), expected.clip(-128, 127))
    assert inside is not None and np.array_equal(inside.numpy(), abs(expected + 0.5) < 128)
    c = {k: torch.as_tensor(np.asarray(v).astype(np.int64)) for k, v in bind.softmax(0.002, 1 / 127).items()}
    names = ("exp", "rsqrt", "multiplier", "shift", "out_multiplier", "out_shift")
    assert np.array_equal(native.softmax(torch.as_tensor(x).float(), c, 1, 8).numpy(),
                          arith.softmax(x, *(c[k].numpy() for k in names), 1, 8))
    other = rng.permutation(x.ravel()).reshape(x.shape)
    m, s = [3 << 20, 5 << 20], [22, 24]
    by = [Rescale.of(k, n, 0, 1 << 15, 0, 8, torch.device("cpu")) for k, n in zip(m, s, strict=True)]
    y, a, b = native.add(*(torch.as_tensor(v).float() for v in (x, other)), by)
    assert np.array_equal(y.numpy(), arith.add(x, other, m, s, 8))
    terms = [arith.round_shift(v * k, n) for v, k, n in zip((x, other), m, s, strict=True)]
    whole = abs(sum(t.clip(-128, 127) for t in terms) + 0.5) < 128
    assert a is not None and b is not None
    for passes, t in zip((a, b), terms, strict=True):
        assert np.array_equal(passes.numpy(), whole & (abs(t + 0.5) < 128))
    table = torch.as_tensor(rng.standard_normal(65536), dtype=torch.float32)
    at = torch.as_tensor(x).float()
    assert torch.equal(native.gather(at, table), table[torch.as_tensor(x) + 32768])
    assert torch.equal(native.gather(at, table, 2 * at), table[torch.as_tensor(x) + 32768] * (2 * at))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", native.KINDS)
def test_scores_and_convolutions_are_those_of_the_arithmetic_whether_doubles_hold_their_products_or_not(name, wide,
                                                                                                        monkeypatch):
    if name not in native.kinds():
        pytest.skip(f"this processor has no {name}")
    monkeypatch.setenv("NNAC_NATIVE", name)
    if native.library() is None:
        pytest.skip("no C compiler, so no native functions")
    rng, cpu = np.random.default_rng(0), torch.device("cpu")
    heads, head, chunk, rows, steps, batch = 2, 20, 3, 18, 4, 2
    q = rng.integers(-128, 128, (steps * chunk, batch, heads * head))
    k = rng.integers(-128, 128, (rows + (steps - 1) * chunk, batch, heads * head))
    bias = rng.integers(-(1 << 29), 1 << 29, (heads, chunk, rows)) >> (0 if wide else 14)
    by = Rescale.of((1 << 24) - 1, 38 if wide else 25, 0, (head << 14) + int(abs(bias).max()), 0, 15, cpu)
    assert by.wide == wide
    y, inside = native_layers.Attention(heads, head, chunk, rows).scores(
        *(torch.as_tensor(v).float() for v in (q, k)), torch.as_tensor(bias, dtype=torch.int32),
        torch.zeros(steps, batch, dtype=torch.int64), by)
    heard = np.stack([k[t * chunk: t * chunk + rows] for t in range(steps)]).reshape(steps, rows, batch, heads, head)
    sums = np.einsum("tcbhd,tjbhd->tcbhj", q.reshape(steps, chunk, batch, heads, head), heard)
    free = arith.requantise(sums + bias.transpose(1, 0, 2)[None, :, None], (1 << 24) - 1, 38 if wide else 25, 0, 40)
    assert (free.min() < -(1 << 14)) and (free.max() >= 1 << 14)
    assert np.array_equal(y.numpy().ravel(), free.clip(-(1 << 14), (1 << 14) - 1).ravel())
    assert np.array_equal(inside.numpy().ravel(), (free == free.clip(-(1 << 14), (1 << 14) - 1)).ravel())
    past, taps = rng.integers(-128, 128, (9, 2, 21)), rng.integers(-127, 128, (4, 21))
    m, s = arith.multiplier_and_shift(np.exp(rng.uniform(-7, -4, 21)) * (1e-4 if wide else 1.0))
    b = rng.integers(-(1 << 29), 1 << 29, 21) >> (0 if wide else 16)
    by = Rescale.of(m, s, b, 4 << 14, -5, 8, cpu)
    assert by.wide == wide
    y, inside = native_layers.depthwise(*(torch.as_tensor(v).float() for v in (past, taps)), by)
    free = arith.requantise(sum(past[i: i + 6] * taps[i] for i in range(4)) + b, m, s, -5, 40)
    assert np.array_equal(y.numpy(), free.clip(-128, 127)) and inside is not None
    assert np.array_equal(inside.numpy(), free == free.clip(-128, 127))


@pytest.mark.parametrize("sizes", [dict(chunk=4, left=8), dict(chunk=3, left=6, width=36, heads=3, feed=20)], ids=str)
def test_a_conformer_is_trained_alike_natively_and_in_pytorch(sizes, monkeypatch):
    """The same integers; gradients that are the same bits on every instruction set, and near those of PyTorch."""
    def trained(kind: str) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        monkeypatch.setenv("NNAC_NATIVE", kind)
        torch.manual_seed(0)
        model = build("conformer", size="tiny", blocks=1, positions=24, kernel=5, **sizes)
        module = module_of("conformer")(lower(model, lambda path: Precision(activations=16 if path.endswith(".sum")
                                                                            else 8)))
        for name, p in module.named_parameters():          # norms and biases that are neither ones nor zeros
            torch.nn.init.normal_(p, 1.0 if name.endswith("norm.weight") else 0.0, 0.3) if p.ndim == 1 else None
        torch.nn.init.normal_(module.layer("encoder.block[0].attention.scores").position, 0, 0.5)
        x = torch.randn(module.graph.values["features"].rate * 4 - 3, 3, 8)
        module.calibrate([(0.5 * x, torch.full((3,), len(x)), torch.randint(1, 12, (3, 3)))])
        seen: list[torch.Tensor] = []
        with module.watching(lambda name, v: seen.append(v.detach().clone())):
            frames, _ = module.encode(x, torch.full((3,), len(x)))
        (frames * torch.randn(frames.shape)).sum().backward()
        return seen, {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}

    expected, slopes = trained("0")
    assert len({float(v.abs().max()) for v in expected}) > 5 and any((v.abs() == 127).sum() > 3 for v in expected)
    bits = set()
    for kind in native.kinds():
        made, own = trained(kind)
        assert all(map(torch.equal, made, expected)) and own.keys() == slopes.keys()
        for name, g in slopes.items():
            assert torch.allclose(own[name], g, 1e-3, 1e-4 * float(g.abs().max())), name
        bits.add(b"".join(g.numpy().tobytes() for g in own.values()))
    assert len(bits) == 1


def test_half_of_the_second_value_is_in_the_multiplier():
    c = bind.add((0.1, 0.2), 0.1, 0.5)
    assert arith.scale_of(c["multiplier"], c["shift"]).tolist() == pytest.approx([1.0, 1.0])
    a, b = np.arange(-20, 20), np.arange(20, -20, -1)
    assert (arith.add(a, b, c["multiplier"], c["shift"], 8) == a + b).all()


def test_sizes_have_the_weights_that_they_promise():
    weights = {s: build("conformer", size=s).weights for s in ("small", "large")}
    assert 1.8e6 < weights["small"] < 2.2e6 and 10e6 < weights["large"] < 15e6
    model = build("conformer", chunk=8, left=32)
    assert model.entry("joint").per_frame == 8 and model.frame_ms == 480
    assert math.isclose(sum(e.per_frame for e in model.entries), 9)


def test_a_graph_of_no_states_keeps_none():
    graph = bind_randomly(evolve(lower(build("conformer", size="tiny"), lambda path: Precision()),
                                 metadata=dict(vocabulary=12)), np.random.default_rng(0))
    kept = {s.name.rpartition(".")[2] for s in graph.states}
    assert kept == {"count", "keys", "values", "past", "hidden", "cell"}
    assert set(build("conformer", size="tiny").entry("encoder").keeps) == {
        f"encoder.block[{i}].{n}" for i in (0, 1) for n in ("attention.scores", "attention.context",
                                                            "convolution.depthwise")}


def test_glu_silu_and_softmax_of_a_model_of_ones_own_are_operators(tmp_path):
    import nnac

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = torch.nn.Linear(12, 32), torch.nn.Linear(16, 16), torch.nn.Linear(16, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.silu(self.b(torch.nn.functional.glu(self.a(x), -1)))
            return torch.softmax(self.c(x), -1)

    torch.manual_seed(0)
    model, x, policy = Gated(), torch.randn(20, 3, 12), tmp_path / "p.nnac"
    policy.write_text('import "targets/edge.nnac"\npolicy p {\n  model module\n  target edge\n'
                      "  layers ** { weights int8 minmax; activations int8 minmax }\n}\n")
    module = nnac.prepare(model, str(policy), x)
    module.calibrate([(x,)])
    assert [n.op for n in module.graph.nodes] == ["linear", "glu", "linear", "swish", "linear", "softmax"]
    assert float((module(x) - model(x)).detach().abs().max()) < 0.02
