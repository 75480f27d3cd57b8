"""The compression methods, each where it acts: how much damage, how fast, how alive, how many bytes.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_methods --float FILE --corpus DIR
        [--parts gptq,csp,snap,freezing,gq,mracos,rate] [--utterances N] [--steps N] [--picture FILE.svg]

gptq    Lloyd-Max at 2, 3 and 4 bits in every LSTM and joint kernel, no training: transducer loss over int8's, with
        `round gptq` over without; CPU seconds of rounding 2 M weights
csp     75 % of the LSTM kernels at once: output error on the kernels' own inputs, over magnitude's; CPU seconds of the
        event
snap    squared error of int8 centroids over that of real ones, less 1, on 1e5 samples: by the largest centroid, by
        least squares; int16
freezing  the float network's kernels, not trained, at places of a training: share with a slope of 0.1 or more and the
        slopes' rms, of gq(4) as it was (inverse temperature 2 to 300) and as it is
gq      a short training of gq(4): share of weights with a slope of 0.1 or more at a quarter, half, three quarters
mracos  a short training of S8BQAT at 3 bits: the pull's gradient over the task's (and what the strengths of before, 0.3
        and the papers' 1e-4, would have had), and the share of weights within a quarter of a spacing of a centroid
        before the last compression, with the pull and without
rate    short trainings of gq(4) with and without the rate in the loss: exact bytes of the codec, and word errors
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnac import codec
from nnac.compiler import resolve
from nnac.compression._centroids import lloyd_max, squared_error, summary
from nnac.compression._feedback import output_error
from nnac.compression._grids import fitted_integers, snapped
from nnac.decode.recogniser import load_recogniser
from nnac.policy import loads
from nnac.shipped import network
from nnac.speech.corpus import load_split
from nnac.train import loop
from nnac.train.batches import Examples, grouped
from nnac.train.evaluate import evaluate
from nnac.train.families.rnnt import Transducer
from nnac.train.policy import PolicyConfig, PolicyTask, build_module, calibrate
from nnac.train.rnnt_loss import rnnt_loss
from nnac.train.schedule import Compression, Slot

SPLITS = ("sent", "voice")
LSTMS = "{encoder, prediction}.lstm[*].{input, recurrent}"
POLICY = """
import "specs/targets/edge.nnac"
policy bench {{
  model rnnt(size="small")
  target edge
  layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}
  layers **.lstm[*] {{ cell int16 fraction(11); accumulate sum16 }}
  {rules}
  training {{ steps 100 steps; learning_rate 3e-4 }}
}}
"""


class Bench:
    """The float network, the corpus, and what is measured with them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.float = args, network(args.float)
        self.recogniser = load_recogniser(self.float)

    def module(self, rules: str) -> Transducer:
        """Calibrated, in evaluation mode."""
        r = self.recogniser
        made = build_module(loads(POLICY.format(rules=rules)).plan, r)
        calibrate(made, Examples(load_split(self.args.corpus, "train"), r.tokens, r.normalisation), 128)
        return made.eval()

    @torch.no_grad()
    def loss(self, module: Transducer) -> float:
        """Transducer loss in nats an utterance."""
        total, count, r = 0.0, 0, self.recogniser
        for name in SPLITS:
            examples = Examples(load_split(self.args.corpus, name).first(self.args.utterances), r.tokens,
                                r.normalisation)
            for rows in grouped(examples.frames, 8000):
                b = examples.batch(rows)
                logits, lengths = module(b.features, b.lengths, b.tokens.T)
                total += float(rnnt_loss(logits, b.tokens, lengths, b.token_counts, reduction="sum"))
                count += len(b)
        return total / count

    def errors(self, module: Transducer) -> float:
        """Word error rate in per cent."""
        wrong = words = 0
        for name in SPLITS:
            found, _ = evaluate(module, load_split(self.args.corpus, name).first(self.args.utterances),
                                self.recogniser.normalisation, self.recogniser.tokens)
            wrong, words = wrong + sum(found.per_utterance), words + sum(found.words_per_utterance)
        return 100 * wrong / words

    def trained(self, policy: str, name: str, look: Any = None, **define: str) -> loop.Trainer:
        """A training of a policy of specs/comparison, all but its last compression; ``look(step, trainer)`` after every
        step."""
        plan = resolve(f"specs/comparison/{policy}.nnac", name, **define)
        config = PolicyConfig.of(plan, steps=self.args.steps)
        task = PolicyTask(plan, config, self.float, self.args.corpus, "")
        learner, examples, _ = task.prepare()
        trainer = loop.Trainer(learner, config, examples, task.identity())
        while trainer.step < config.steps:
            learner.before_step(trainer.step)
            for shard in range(config.shards):
                trainer.accumulate(shard)
            trainer.update()
            if look is not None:
                look(trainer.step, trainer)
        return trainer


def slots(module: Transducer) -> list[Slot]:
    """The kernels of LSTMs."""
    return [s for s in Compression(module).slots if ".lstm" in s.name]


def gptq(bench: Bench) -> dict[str, Any]:
    base, out, seconds = bench.loss(bench.module("")), {}, {}
    for bits in (2, 3, 4):
        damage = {}
        for how in ("none", "gptq"):
            words = f"{{ weights lloyd_max({bits}); round {how} }}"
            begun = time.process_time()
            module = bench.module(f"layers {LSTMS} {words}\n  layers joint.{{encoder, prediction}}.weight {words}")
            seconds[how] = time.process_time() - begun     # of building and calibrating as well: the difference counts
            damage[how] = bench.loss(module) - base
        out[str(bits)] = round(damage["gptq"] / damage["none"], 3)
    return {"gptq_damage_ratio": out, "gptq_s": round(seconds["gptq"] - seconds["none"], 1)}


def csp(bench: Bench) -> dict[str, Any]:
    errors, seconds = {}, 0.0
    grams: dict[str, Tensor] = {}
    for keyword in ("csp", "magnitude"):
        module = bench.module(f"layers {LSTMS} {{ sparsity {keyword}(75%, to=1 steps) }}")
        grams = grams or {s.name: s.quantiser.inputs.clone() for s in slots(module)}
        before = {s.name: s.read().detach().clone() for s in slots(module)}
        begun = time.process_time()
        Compression(module, 100).on_step(1)
        seconds = seconds or time.process_time() - begun
        errors[keyword] = float(np.mean([float(output_error(s.read() - before[s.name], grams[s.name])
                                               / output_error(before[s.name], grams[s.name])) for s in slots(module)]))
    return {"csp_output_error_over_magnitude": round(errors["csp"] / errors["magnitude"], 3),
            "csp_event_s": round(seconds, 2)}


def snap(bench: Bench) -> dict[str, Any]:
    out: dict[str, Any] = {}
    random = np.random.default_rng(0)
    samples = {"normal": random.standard_normal(100_000), "student_t3": random.standard_t(3, 100_000)}
    for name, x in samples.items():
        for k in (16, 32):
            c = lloyd_max(x, k)
            exact, real = squared_error(x, c), torch.from_numpy(c)
            points, mass = map(torch.from_numpy, summary(x))
            tried = {"largest": snapped(real), "least_squares": fitted_integers(real, points, mass),
                     "int16": fitted_integers(real, points, mass, 16)}
            out[f"{name}_{k}"] = {how: round(squared_error(x, (q.double() * u.double()).numpy()) / exact - 1, 5)
                                  for how, (q, u) in tried.items()}
    return {"snap_excess": out}


def slopes(slot: Slot) -> Tensor:
    """By each weight, of the sum of what it becomes."""
    w = slot.read().detach().clone().requires_grad_()
    codes, scale = slot.quantiser(w)
    (codes * scale[:, None]).sum().backward()
    assert w.grad is not None
    return w.grad


def freezing(bench: Bench) -> dict[str, Any]:
    length, found = 400, {}
    for name, method in (("before", "gq(4, anneal=exponential(2 -> 300, over=50%))"), ("after", "gq(4)")):
        module = bench.module(f"layers {LSTMS} {{ weights {method} }}")
        compression = Compression(module.train(), length)
        found[name] = []
        for step in (1, 25, 50, 75, 100, 150, 199, 250, 300, 399):
            compression.on_step(step)
            all_of = [slopes(s) for s in slots(module)]
            alive = float(np.mean([float((g.abs() >= 0.1).float().mean()) for g in all_of]))
            size = float(np.mean([float(g.double().square().mean().sqrt()) for g in all_of]))
            found[name].append([round(step / length, 4), round(alive, 4), round(size, 3)])
    return {"gq_freezing": found}


def gq(bench: Bench) -> dict[str, Any]:
    alive: list[float] = []
    marks = [round(bench.args.steps * share) for share in (0.25, 0.5, 0.75)]

    def look(step: int, trainer: loop.Trainer) -> None:
        if step not in marks:
            return
        model: Any = trainer.learner.model
        shares = [float((slopes(slot).abs() >= 0.1).float().mean()) for slot in slots(model)]
        model.zero_grad(set_to_none=False)
        alive.append(round(float(np.mean(shares)), 4))

    bench.trained("gq", "gq", look, bits="4")
    return {"gq_slope_alive": alive}


def near(model: Any) -> float:
    """The share of weights within a quarter of the distance between centroids of one."""
    shares = []
    for slot in slots(model):
        w = slot.read().detach()
        grid = slot.quantiser.grid(w)  # type: ignore[union-attr]
        u = w.reshape(1, -1) / grid.unit
        low, high = grid.bracket(u)
        place = ((u - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
        shares.append(float((torch.minimum(place, 1 - place) <= 0.25).float().mean()))
    return float(np.mean(shares))


def mracos(bench: Bench) -> dict[str, Any]:
    within, ratio = {}, []
    fixed: dict[float, list[float]] = {0.3: [], 1e-4: []}

    def look(step: int, trainer: loop.Trainer) -> None:
        model: Any = trainer.learner.model
        if trainer.notes:                                  # the strength has just been settled
            for slot in slots(model):
                q: Any = slot.quantiser
                size = float((q.pulled[0] / q.pulled[1]).sqrt())
                own = float(q._pulling(slot.read().detach()).double().square().mean().sqrt())
                ratio.append(float(q.pulled[2]) * own / size)
                for strength, of_kernels in fixed.items():
                    of_kernels.append(strength * own / size)

    for name in ("s8bqat", "s8bqat_no_pull"):
        within[name] = round(near(bench.trained("s8bqat", name, look, bits="3").learner.model), 4)
    return {"mracos_pull_over_task": round(float(np.mean(ratio)), 4) if ratio else None,
            "mracos_strength_over_task": {f"{k:g}": float(f"{np.mean(v):.2g}") for k, v in fixed.items() if v},
            "mracos_within_quarter_spacing": within}


def rate(bench: Bench) -> dict[str, Any]:
    found = {}
    for name, pull in (("gq", None), ("gq_rate", "30%"), ("gq_rate", "100%"), ("gq_rate", "300%")):
        learner: Any = bench.trained("gq", name, None, bits="4", **({} if pull is None else {"pull": pull})).learner
        learner.before_step(learner.steps)
        model = learner.model.eval()
        taken = sum(codec.choose(slot.quantiser(slot.read())[0].detach().numpy().astype(np.int8)).encoded.size_bytes
                    for slot in slots(model))
        found[pull or "none"] = (taken, bench.errors(model))
    (bytes_plain, wer_plain), equal = found["none"], 0.1
    saved = [1 - size / bytes_plain for size, wer in found.values() if wer <= wer_plain + equal]
    return {"rate_bytes_saved_at_equal_wer": round(max(saved), 4),
            "rate_bytes_and_wer": {k: [b, round(w, 2)] for k, (b, w) in found.items()}}


PARTS = {f.__name__: f for f in (gptq, csp, snap, freezing, gq, mracos, rate)}


def picture(figures: dict[str, Any], path: str) -> None:
    """Freezing and slopes of GQ over a training, and the pull over the task's gradient, before and after."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "nnac"
    import matplotlib.pyplot as plt

    figure, (alive, size, pull) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for name, points in figures.get("gq_freezing", {}).items():
        x, shares, sizes = zip(*points, strict=True)
        alive.plot(x, shares, marker=".", label=f"GQ {name}" + (": 2 to 300" if name == "before" else ": 1 to 4"))
        size.plot(x, sizes, marker=".", label=f"GQ {name}")
    if "gq_slope_alive" in figures:
        alive.plot((0.25, 0.5, 0.75), figures["gq_slope_alive"], "k^", label="in a training")
    alive.set(xlabel="share of training", ylabel="weights with slope 0.1 or more", ylim=(0, 1.05))
    size.set(xlabel="share of training", ylabel="rms of slopes", yscale="log")
    alive.legend(fontsize="small")
    ratios = dict(figures.get("mracos_strength_over_task", {}))
    if figures.get("mracos_pull_over_task"):
        ratios["pull=100%"] = figures["mracos_pull_over_task"]
    pull.set_visible(bool(ratios))
    floor = 1e-6
    pull.bar(list(ratios), [v - floor for v in ratios.values()], bottom=floor,
             color=["C0"] * (len(ratios) - 1) + ["C1"])
    pull.set(yscale="log", ylim=(floor, 3), ylabel="MRACos: gradient over the task's", xlabel="strength")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--float", default="demo")
    p.add_argument("--corpus", default="runs/corpus")
    p.add_argument("--parts", default=",".join(PARTS))
    p.add_argument("--utterances", type=int, default=400, help="of each split (400)")
    p.add_argument("--steps", type=int, default=100, help="of each training (100)")
    p.add_argument("--picture", metavar="FILE.svg", help="of gradients and freezing, before and after")
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    bench, out = Bench(args), {}
    for name in args.parts.split(","):
        begun = time.process_time()
        out |= (found := PARTS[name](bench))
        print(f"{name:<8} {json.dumps(found)}  [{time.process_time() - begun:.0f} s of CPU]", flush=True)
    if args.picture:
        picture(out, args.picture)
    print(json.dumps(out | {"steps": args.steps, "utterances": args.utterances}))
    return 0


if __name__ == "__main__":
    assert Path("specs").is_dir(), "run from the top of a checkout"
    sys.exit(main())
