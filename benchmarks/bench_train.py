"""What exact integers cost in training, and whether they are exact.

    python benchmarks/bench_train.py [--quick] [--threads N] [--repeat N] [--peers PATH]

Times: one process, one step of each system in turn, medians of the ratios' parts; so other work on the machine hits all
alike.
    LSTM          2 layers, 512 inputs, 512 cells, batch 16, 100 steps, forward + mean square + backward; everything
                  inside quantised
    training step the demo's RNN-T (`small`): forward, RNN-T loss, backward, clipping, AdamW; 300 frames, batch 16, 20
    labels
Memory: how far two LSTM steps raise the resident size at its highest, a process for each system (Linux).
Integers: every value the training module makes is compared with `evaluate` of the bound graph, and every
pre-activation, cell and hidden integer of the fast LSTM with `nnac.arith`: random and trained weights, both
accumulation variants, saturated cells over 500 steps. On a processor with AVX-512, LSTM and training step are timed
once more in a process whose PyTorch, MKL, oneDNN and native library are held to AVX2.  Brevitas and torch.ao are timed
if they can be imported (--peers: one more directory to import from).  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nnac import arith
from nnac.compression.minmax import MinMax
from nnac.evaluate import evaluate
from nnac.formats import Precision, unit_scale
from nnac.ir import Node, QGraph, Value
from nnac.lower import lower
from nnac.model import build
from nnac.model.rnnt_torch import Rnnt, RnntConfig
from nnac.ops.lstm import LstmAttributes
from nnac.train import kernels, native
from nnac.train.families.rnnt import Transducer
from nnac.train.format import Format
from nnac.train.integers import dequantise, int8_products, quantise
from nnac.train.ops.lstm import Lstm
from nnac.train.quantiser import Settings, WeightQuantiser
from nnac.train.rnnt_loss import rnnt_loss

LAYERS, WIDTH, BATCH, STEPS = 2, 512, 16, 100
INPUT = Format(0.03, 0, 8)
HIDDEN = Format(unit_scale(8), 0, 8)


# ------------------------------------------------------------------------------------------------------- what is timed

class ExactLstm(torch.nn.Module):
    """A stack of the training module's LSTM layers, real numbers in and out."""

    def __init__(self, variant: str = "acc32", inputs: int = WIDTH, cells: int = WIDTH, depth: int = LAYERS) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList()
        for i in range(depth):
            name = f"lstm[{i}]"
            values = {"x": Value("x", inputs if i == 0 else cells, 8), name: Value(name, cells, 8, scale=HIDDEN.scale)}
            attributes = LstmAttributes(cells=cells, variant=variant, fraction=11, hidden_bits=8, bidirectional=False,
                                        project=0, cell_output_bits=8)
            node = Node(name, "lstm", ("x",), name, "encoder", attributes)
            layer = Lstm(node, QGraph("stack", values, (node,), {"encoder": ("x",)}, {"encoder": (name,)}))
            layer.make_quantisers(lambda kernel, w, bits: WeightQuantiser(Settings(MinMax(), bits), w, name=kernel))
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        y, form = quantise(x, INPUT), INPUT
        for layer in self.layers:
            zero = torch.zeros(x.shape[1], layer.cells)
            state = {f"{layer.node.path}.hidden": zero, f"{layer.node.path}.cell": zero}
            y, form = layer.integers([y], [form], HIDDEN, state, None), HIDDEN
        return dequantise(y, HIDDEN)


def brevitas() -> torch.nn.Module | None:
    """Its LSTM with its default 8-bit quantisers."""
    try:
        from brevitas.nn import QuantLSTM
    except ImportError:
        return None
    return QuantLSTM(WIDTH, WIDTH, LAYERS).train()


def torch_ao() -> torch.nn.Module | None:
    """Its LSTM after prepare_qat."""
    try:
        import torch.ao.nn.quantizable as quantizable
        import torch.ao.quantization as quantization
    except ImportError:
        return None
    reference = torch.nn.LSTM(WIDTH, WIDTH, LAYERS).train()
    reference.qconfig = quantization.get_default_qat_qconfig("x86")
    return quantizable.LSTM.from_float(reference).train()


def lstm_step(module: torch.nn.Module, x: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    module.zero_grad(set_to_none=True)
    start = time.perf_counter()
    y = module(x)
    y = y[0] if isinstance(y, tuple) else y
    (y.value if hasattr(y, "value") and not isinstance(y, Tensor) else y).pow(2).mean().backward()
    return time.perf_counter() - start


def in_turn(steps: dict[str, Callable[[], float]], repeat: int, rare: tuple[str, ...] = ()) -> dict[str, float]:
    """Median seconds of each, taken in turn; those in ``rare`` only in every third round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for i in range(repeat):
        for name, step in steps.items():
            if name not in rare or i % 3 == 0:
                times[name].append(step())
    return {name: statistics.median(t) for name, t in times.items()}


def precision(path: str, variant: str = "acc32") -> Precision:
    """Eight bits everywhere, sixteen inside the joint network."""
    return Precision(variant=variant, activations=16 if path.startswith("joint") and path != "joint.activation" else 8)


def training_steps(frames: int, batch: int, labels: int) -> dict[str, Callable[[], float]]:
    """One optimiser step of the float network and of the training module, on the same batch."""
    torch.manual_seed(0)
    network = Rnnt(RnntConfig(dropout=0.0))
    module = Transducer(lower(build("rnnt", size="small"), precision), network.state_dict())
    x, lengths, targets = torch.randn(frames, batch, 40), torch.full((batch,), frames), torch.randint(1, 64,
        (labels, batch))
    module.calibrate([(x, lengths, targets)])

    def step_of(model: torch.nn.Module) -> Callable[[], float]:
        optimiser = torch.optim.AdamW(model.parameters(), 1e-4, foreach=True)

        def step() -> float:
            start = time.perf_counter()
            logits, n = model(x, lengths, targets)
            loss = rnnt_loss(logits, targets.t(), n, torch.full((batch,), labels))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            return time.perf_counter() - start
        return step
    return dict(float=step_of(network), exact=step_of(module))


HELD = {"NNAC_NATIVE": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2"}


def ratios(repeat: int, quick: bool) -> dict[str, dict[str, float]]:
    """Seconds of the LSTMs and of the training step, ours beside PyTorch's."""
    torch.manual_seed(0)
    x = torch.randn(STEPS // 10 if quick else STEPS, BATCH, WIDTH)
    modules = {"torch.nn.LSTM": torch.nn.LSTM(WIDTH, WIDTH, LAYERS), "nnac acc32": ExactLstm(),
               "nnac sum16": ExactLstm("sum16")}
    shape = dict(frames=60, batch=4, labels=5) if quick else dict(frames=300, batch=16, labels=20)
    return dict(lstm=in_turn({name: (lambda m=m: lstm_step(m, x)) for name, m in modules.items()}, repeat),
                training=in_turn(training_steps(**shape), repeat))


def held_to_avx2(repeat: int, quick: bool) -> dict[str, dict[str, float]]:
    """`ratios` in a process of its own that takes no wider instructions."""
    command = [sys.executable, __file__, "--held", "--repeat", str(repeat), *(["--quick"] if quick else [])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True,
                                     env=os.environ | HELD).stdout.splitlines()[-1])


def resident() -> int:
    """Resident size of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def memory(which: str) -> None:
    """In a process of its own: print by how many bytes two steps raise the resident size at its highest, sampled every
    millisecond."""
    torch.set_num_threads(1)
    make = torch.nn.LSTM if which == "float" else lambda inputs, cells, depth: ExactLstm(inputs=inputs, cells=cells,
        depth=depth)
    module, x = make(WIDTH, WIDTH, LAYERS), torch.randn(STEPS, BATCH, WIDTH)
    lstm_step(make(8, 8, 1), torch.randn(2, 2, 8))                               # load what is loaded late
    before, highest, done = resident(), 0, threading.Event()

    def sample() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, resident())
            time.sleep(0.001)
    sampler = threading.Thread(target=sample)
    sampler.start()
    for _ in range(2):
        lstm_step(module, x)
    done.set()
    sampler.join()
    print(highest - before)


def peak_memory(which: str) -> int:
    """`memory` in a process of its own, bytes."""
    return int(subprocess.run([sys.executable, __file__, "--memory", which], capture_output=True, text=True,
                              check=True).stdout.split()[-1])


# ---------------------------------------------------------------------------------------------------- what is compared

def against_evaluate(module: Transducer, frames: int, batch: int, labels: int, seed: int) -> tuple[int, int, int]:
    """(compared, different, cells at their limit): all values of all entries of a module, joint over the whole
    lattice."""
    generator = torch.Generator().manual_seed(seed)
    width = module.graph.values["features"].width
    x, targets = 2 * torch.randn(frames, batch, width, generator=generator), torch.randint(1, 12, (labels, batch),
        generator=generator)
    graph, seen = module.bind(), {}
    with torch.no_grad(), module.watching(lambda name, v: seen.setdefault(name, v)):
        encoded, _ = module.encode(x, torch.full((batch,), frames))
        predicted = module.predictions(targets)
        module.joint(encoded[:, None], predicted[None])
    compared = different = saturated = 0

    def check(name: str, expected: np.ndarray) -> None:
        nonlocal compared, different
        got = seen[name].to(torch.int32).numpy().reshape(expected.shape)
        compared, different = compared + got.size, different + int((got != expected).sum())

    out, state = evaluate(graph, "encoder", dict(features=seen["features"].numpy()), watch=check)
    saturated += sum(int((np.abs(v + 0.5) > 32767).sum()) for k, v in state.items() if k.endswith("cell"))
    tokens = torch.cat([targets.new_zeros(1, batch), targets])[:, :, None].numpy()
    out |= evaluate(graph, "prediction", dict(label=tokens), watch=check)[0]
    e, p = (out[k] for k in graph.inputs["joint"])
    shape = (e.shape[0], p.shape[0], *e.shape[1:])
    flat = {k: np.broadcast_to(v, shape).reshape(1, -1, shape[-1])
            for k, v in zip(graph.inputs["joint"], (e[:, None], p[None]), strict=True)}
    evaluate(graph, "joint", flat, watch=check)
    return compared, different, saturated


def against_arith(variant: str, gain: float, open_gates: bool, steps: int, seed: int) -> tuple[int, int, int]:
    """The same for one LSTM layer of 512 cells, inside: every pre-activation, cell and hidden integer.

    Each step is worked out from the state that the fast loop had before it; equal at every step means equal throughout.
    """
    torch.manual_seed(seed)
    layer = ExactLstm(variant, depth=1).layers[0]
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(gain)
        if open_gates:                                   # every cell climbs to one limit or the other, and stays
            h = layer.cells
            layer.bias_ih_l0[: 2 * h] += 7.0
            layer.bias_ih_l0[2 * h: 3 * h] += torch.where(torch.arange(h) % 2 == 0, 7.0, -7.0)
        constants = layer.constants([INPUT], HIDDEN)
    x = torch.randint(-128, 128, (steps, BATCH, WIDTH)).float()
    zero = torch.zeros(BATCH, WIDTH)
    trace = kernels.forward(x, zero, zero, constants.ready[""][0])
    c = {k: torch.as_tensor(np.ascontiguousarray(v)).long() for k, v in constants.bound().items()}
    compared = different = saturated = 0
    for first in range(0, steps, 50):                    # in pieces, to keep the int64 tensors small
        last = min(steps, first + 50)
        hidden = torch.cat([zero[None].long() if first == 0 else trace.hidden[first - 1: first].long(),
                            trace.hidden[first: last - 1].long()])
        cell = torch.cat([zero[None].long() if first == 0 else trace.cells[first - 1: first].long(),
                          trace.cells[first: last - 1].long()])
        from_x, from_h = arith.matmul(x[first: last].long(), c["input"]) + c["bias"], arith.matmul(hidden,
            c["recurrent"])
        if variant == "acc32":
            pre = arith.requantise(from_x + from_h, c["multiplier"], c["shift"], 0, 16)
        else:
            pre = arith.saturate(arith.requantise(from_x, c["input_multiplier"], c["input_shift"], 0, 16) +
                                 arith.requantise(
                from_h, c["recurrent_multiplier"], c["recurrent_shift"], 0, 16), 16)
        h, new = arith.lstm_cell(pre, cell, c["sigmoid"], c["tanh"], c["tanh_cell"], 11, c["hidden_multiplier"],
                                 c["hidden_shift"], 8)
        for got, expected in ((trace.pre, pre), (trace.cells, new), (trace.hidden, h)):
            compared, different = (compared + expected.numel(), different
                                   + int((got[first: last].long() != expected).sum()))
        saturated += int(((new == 32767) | (new == -32768)).sum())
    return compared, different, saturated


def trained(variant: str, steps: int) -> Transducer:
    """A small RNN-T after some steps of training, quantised from the start."""
    torch.manual_seed(1)
    module = Transducer(lower(build("rnnt", size="small"), lambda path: precision(path, variant)))
    x, lengths, targets = torch.randn(120, 8, 40), torch.full((8,), 120), torch.randint(1, 64, (8, 8))
    module.calibrate([(x, lengths, targets)])
    optimiser = torch.optim.Adam(module.parameters(), 2e-3)
    for _ in range(steps):
        logits, n = module(x, lengths, targets)
        optimiser.zero_grad()
        rnnt_loss(logits, targets.t(), n, torch.full((8,), 8)).backward()
        optimiser.step()
    return module


def comparisons(quick: bool) -> Iterator[tuple[str, int, int, int]]:
    """(what, compared, different, cells at their limit)."""
    small = dict(frames=60, batch=2, labels=4) if quick else dict(frames=600, batch=16, labels=24)
    for variant in ("acc32", "sum16"):
        yield f"RNN-T small, random weights, {variant}", *against_evaluate(trained(variant, 0), **small, seed=1)
        module = trained(variant, 2 if quick else 25)
        yield f"RNN-T small, trained weights, {variant}", *against_evaluate(module, **small, seed=2)
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(6.0)
        yield f"RNN-T small, trained weights times 6, {variant}", *against_evaluate(module, **small, seed=3)
        for gain, open_gates in ((1.0, False), (8.0, False), (1.0, True)):
            what = (f"LSTM 512, every gate and cell, weights times {gain:g}{', gates open' if open_gates else ''}, "
                    f"{variant}")
            yield what, *against_arith(variant, gain, open_gates, 20 if quick else 500, seed=4)


# ------------------------------------------------------------------------------------------------------------- the run

def main() -> int:
    """Print the tables, then the JSON line; 1 if an integer differed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, few repeats: to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--peers", metavar="DIRECTORY", help="where Brevitas is, if not installed")
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=("float", "exact"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.memory)
        return 0
    warnings.filterwarnings("ignore")
    if arguments.held:
        torch.set_num_threads(1)
        print(json.dumps(ratios(arguments.repeat, arguments.quick)))
        return 0
    if arguments.peers:
        sys.path.append(arguments.peers)
    torch.set_num_threads(arguments.threads)
    console = Console(width=120)
    route = (f"native loop ({native.kind()})" if native.library() is not None else "int8 products"
             if int8_products("cpu") else "float32 products")
    console.print(f"torch {torch.__version__}, {arguments.threads} thread(s), LSTM time loop: {route}")

    steps = STEPS // 10 if arguments.quick else STEPS
    torch.manual_seed(0)
    x = torch.randn(steps, BATCH, WIDTH)
    modules: dict[str, torch.nn.Module | None] = {"torch.nn.LSTM": torch.nn.LSTM(WIDTH, WIDTH, LAYERS),
                                                  "nnac acc32": ExactLstm(),
                                                  "nnac sum16": ExactLstm("sum16"), "Brevitas": brevitas(),
                                                  "torch.ao": torch_ao()}
    timed = {name: (lambda m=m: lstm_step(m, x)) for name, m in modules.items() if m is not None}
    repeat = 2 if arguments.quick else arguments.repeat
    lstm = in_turn(timed, repeat, rare=("Brevitas", "torch.ao"))
    shape = dict(frames=60, batch=4, labels=5) if arguments.quick else dict(frames=300, batch=16, labels=20)
    training = in_turn(training_steps(**shape), repeat)
    held = held_to_avx2(repeat, arguments.quick) if native.kind() == "vnni" else None
    peaks = {which: peak_memory(which) for which in ("float", "exact")}

    table = Table("LSTM 2 x 512, forward and backward", "milliseconds", "ratio")
    for name, seconds in lstm.items():
        table.add_row(name, f"{seconds * 1e3:.0f}", f"{seconds / lstm['torch.nn.LSTM']:.2f}")
    for name, seconds in held["lstm"].items() if held else ():
        table.add_row(f"{name}, held to AVX2", f"{seconds * 1e3:.0f}", f"{seconds / held['lstm']['torch.nn.LSTM']:.2f}")
    console.print(table)
    table = Table("", "float", "nnac", "ratio")
    table.add_row("RNN-T training step, milliseconds", *(f"{training[k] * 1e3:.0f}" for k in ("float", "exact")),
                  f"{training['exact'] / training['float']:.2f}")
    if held:
        table.add_row("the same, held to AVX2", *(f"{held['training'][k] * 1e3:.0f}" for k in ("float", "exact")),
                      f"{held['training']['exact'] / held['training']['float']:.2f}")
    table.add_row("LSTM step, peak memory, MiB", *(f"{peaks[k] / 2**20:.0f}" for k in ("float", "exact")),
                  f"{peaks['exact'] / peaks['float']:.2f}")
    console.print(table)

    table = Table("integers against the reference", "compared", "different", "cells at their limit")
    total = np.zeros(3, np.int64)
    for what, *counts in comparisons(arguments.quick):
        total += counts
        table.add_row(what, *(f"{n:,}" for n in counts))
    table.add_row("all", *(f"{n:,}" for n in total))
    console.print(table)

    ratio = lambda name: round(lstm[name] / lstm["torch.nn.LSTM"], 3) if name in lstm else None  # noqa: E731
    print(json.dumps(dict(
        exact_lstm_ratio=ratio("nnac acc32"), exact_lstm_sum16_ratio=ratio("nnac sum16"),
        exact_lstm_memory_ratio=round(peaks["exact"] / peaks["float"], 3),
                          train_step_ratio=round(training["exact"] / training["float"], 3),
        exact_lstm_ratio_avx2=round(held["lstm"]["nnac acc32"] / held["lstm"]["torch.nn.LSTM"], 3) if held else None,
        train_step_ratio_avx2=round(held["training"]["exact"] / held["training"]["float"], 3) if held else None,
        brevitas_ratio=ratio("Brevitas"), torch_ao_ratio=ratio("torch.ao"), compared_integers=int(total[0]),
                          different_integers=int(total[1]),
        saturated_cells=int(total[2]), route=route, threads=arguments.threads)))
    return int(total[1] > 0)


if __name__ == "__main__":
    sys.exit(main())
