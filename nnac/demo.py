"""The whole path on real speech: corpus, float network (the one that comes with nnac, or trained here), policy,
training, program, emulator.

Each stage keeps its result under the output folder and is not repeated; stop at any time and call again.  Held-out
audio is read from WAV files, as a device would hear it, by all three: float network, training module in evaluation
mode, emulator.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from nnac import compiler
from nnac.cli import main as cli
from nnac.compare import Comparison, compare
from nnac.console import console
from nnac.decode.front_end import FrontEnd, recognise
from nnac.decode.recogniser import load_recogniser
from nnac.emulator.executor import Emulator
from nnac.program import Program
from nnac.progress import progress
from nnac.shipped import network, specification
from nnac.speech.audio import read_manifest
from nnac.speech.corpus import CorpusSpec, build, manifest_path
from nnac.speech.wer import WordErrors, word_errors
from nnac.train import baseline, native, policy
from nnac.train.baseline import TrainConfig
from nnac.train.policy import PolicyConfig

Say = Callable[[str], None]
HELD_OUT = ("sent", "voice")


@frozen
class Recipe:
    """What a demo makes.

    config  of the float network's training; None: there is one already
    network  its file, or a name that comes with nnac
    policy_steps  None: as many as the policy says      policy_utterances  how many of the training split, None: all
    """

    # what 100 steps and the held-out speech need
    corpus: CorpusSpec = CorpusSpec(train=1500, dev=100, sent=200, voice=200, wavs=200)
    config: TrainConfig | None = None
    policy: str = "specs/rnnt_int8.nnac"
    policy_steps: int | None = 100
    policy_rate: float | None = 5e-5          # a brief fine-tune must not undo what the float training settled
    policy_utterances: int | None = 1500
    network: str = "demo"


FROM_NOTHING = Recipe(CorpusSpec(train=9000, dev=200, sent=200, voice=200, wavs=200), TrainConfig())


@frozen(eq=False)
class Heard:
    """Held-out utterances and what each executor made of them."""

    names: list[str]
    references: list[str]
    float_texts: list[str]
    comparison: Comparison
    errors: dict[str, WordErrors]
    seconds: float
    cycles: int
    clock: int

    @property
    def rtf(self) -> float:
        return self.cycles / self.clock / self.seconds

    @property
    def cycles_per_frame(self) -> float:
        return self.cycles / max(1, self.comparison.steps["encoder"])


def processor() -> str:
    """The processor's name, its cores, and what the native kernels use of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, native kernels: {native.kind() if native.library() else 'none'}"


def run(out: Path, recipe: Recipe, say: Say, quiet: bool = False, setup_s: float | None = None) -> dict[str, Any]:
    """Do all of it in ``out``; returns the figures.  ``setup_s``: how long installing took, if that is known.

    UserError, DiagnosticError: what is wrong.
    """
    begun = time.monotonic()

    def stage(title: str) -> None:
        say(f"\n== {title}  [{time.monotonic() - begun:.0f} s]")

    corpus, spec = out / "corpus", specification(recipe.policy)
    stage("speech corpus: a voice assistant's sentences in many voices, with noise and rooms")
    made = build(corpus, recipe.corpus, quiet=quiet)
    say(
        "\n".join(
            f"{s}: {m['utterances']} utterances, {m['hours']:.2f} h, {m['voices']} voices" for s, m in made.items()
        )
    )

    if recipe.config is None:
        float_path = Path(network(recipe.network))
        stage(f"float RNN-T: {float_path}")
        training = load_recogniser(float_path).training
        size = float_path.stat().st_size
        say(f"trained in {training['steps']} steps, dev WER {training['dev_wer']:.2f} %, {size:,} bytes")
    else:
        float_path = out / "float.nnc"
        stage("float RNN-T, trained from nothing")
        say(f"dev WER {baseline.train(corpus, float_path, recipe.config, quiet=quiet)[-1]['dev']:.2f} %")

    stage(f"policy {spec.name}: lint, explain")
    if not quiet:
        cli(["lint", str(spec)])
        cli(["explain", str(spec), "encoder.lstm[0].input"])
    plan = compiler.resolve(spec)
    stage(f"training under {plan.name}: the forward pass computes the NNA's integers")
    config = evolve(
        PolicyConfig.of(plan, steps=recipe.policy_steps, learning_rate=recipe.policy_rate),
        train_utterances=recipe.policy_utterances,
    )
    trained_path = out / f"{plan.name}.nnc"
    policy.train(plan, float_path, corpus, trained_path, config, quiet=quiet)

    stage(f"compiling for `{plan.target.name}`")
    program_path = out / f"{plan.name}.nnp"
    if not program_path.exists() or program_path.stat().st_mtime < trained_path.stat().st_mtime:
        compiler.program(compiler.trained(trained_path)).save(program_path)
    program = Program.load(program_path)
    say(
        f"{program_path}: {program_path.stat().st_size:,} bytes; "
        + ", ".join(f"{n} {e.cycles:,} cycles" for n, e in program.entries.items())
    )

    stage("held-out speech: float network, training module, emulator")
    heard = listen(corpus, float_path, trained_path, program, quiet)
    describe(heard, say)
    c = heard.comparison
    weights = load_recogniser(float_path).model
    return {
        "wer_float": heard.errors["float"].rate,
        "wer_training_module": heard.errors["training"].rate,
        "wer_emulator": heard.errors["emulator"].rate,
        "words": heard.errors["float"].words,
        "utterances": len(heard.references),
        "compared_integers": c.compared,
        "different_integers": c.different,
        "different_transcripts": c.different_transcripts,
        "model_bytes": weight_bytes(program),
        "float_bytes": 4 * sum(p.numel() for p in weights.parameters()),
        "program_bytes": program_path.stat().st_size,
        "cycles_per_frame": round(heard.cycles_per_frame),
        "rtf": heard.rtf,
        "cycles": {n: e.cycles for n, e in program.entries.items()},
        "audio_s": round(heard.seconds, 1),
        "wall_s": round(time.monotonic() - begun, 1),
        "setup_s": setup_s,
        "processor": processor(),
    }


def weight_bytes(program: Program) -> int:
    """Bytes of all compressed kernels in the program."""
    return sum(k["bytes"] for k in program.report["layers"].values())


def listen(corpus: Path, float_path: Path, trained_path: Path, program: Program, quiet: bool) -> Heard:
    """Transcribe the held-out WAV files with all three, comparing every integer of the last two."""
    import torch

    # steps of a search are small: a second thread only waits, and waiting for it costs more than it does
    torch.set_num_threads(1)
    utterances = [u for split in HELD_OUT for u in read_manifest(manifest_path(corpus, split))]
    recogniser, trained = load_recogniser(float_path), compiler.trained(trained_path)
    front: FrontEnd = trained.front
    heard = [front.hear(u.audio) for u in utterances]
    features = [f for f, _ in heard]
    references = [u.text for u in utterances]
    with progress("float network", len(features), quiet) as advance, torch.no_grad():
        float_texts = recognise(recogniser.model, front.text, features, carry=torch.from_numpy, advance=advance)
    emulator = Emulator(program)
    with progress("emulator and training module", len(features), quiet) as advance:
        comparison = compare(trained.module, emulator, front, features, batch=64, advance=advance)
    errors = {
        "float": word_errors(references, float_texts),
        "training": word_errors(references, comparison.expected_texts),
        "emulator": word_errors(references, comparison.texts),
    }
    return Heard([Path(u.audio).name for u in utterances], references, float_texts, comparison, errors,
                 sum(seconds for _, seconds in heard),
                 sum(n * emulator.cycles(e) for e, n in comparison.steps.items()), program.target.clock)


def describe(heard: Heard, say: Say) -> None:
    """Every utterance in four lines, then the table."""
    from rich.table import Table

    c = heard.comparison
    for name, *texts in zip(heard.names, heard.references, heard.float_texts, c.expected_texts, c.texts, strict=True):
        labels = ("reference", "float", "training", "emulator")
        say(name + "".join(f"\n  {label:<10} {text}" for label, text in zip(labels, texts, strict=True)))
    values = Table(
        "value", "integers compared", "different", title="training module against emulator, every layer output"
    )
    for name, (compared, different) in c.by_value.items():
        values.add_row(name, f"{compared:,}", f"{different:,}")
    values.add_row("all", f"{c.compared:,}", f"{c.different:,}", style="bold")
    errors = Table(
        "executor", "word errors", title=f"{len(heard.references)} held-out utterances, {heard.seconds:.0f} s"
    )
    for name, e in heard.errors.items():
        errors.add_row(name, str(e))
    shown = console(width=110)
    for table in (values, errors):
        with shown.capture() as capture:
            shown.print(table)
        say(capture.get().rstrip())
    if c.first:
        say(f"first difference: {c.first}")
    say(f"different transcripts: {c.different_transcripts}   cycles per frame (60 ms): {heard.cycles_per_frame:,.0f}   "
        f"real-time factor at {heard.clock / 1e6:g} MHz: {heard.rtf:.4f}")
