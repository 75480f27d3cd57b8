"""Whatever listens, from its file: a float network, a training module, a program on the emulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from numpy.typing import NDArray

from nnac.decode.front_end import FrontEnd


@frozen(eq=False)
class Listener:
    """``model``: as beam search asks it; ``carry``: arrays into what it wants, or None; ``digest``: of the file's
    contents; ``entries``: the language models inside."""

    model: Any
    front: FrontEnd
    carry: Callable[[NDArray], Any] | None
    digest: str
    entries: tuple[str, ...] = ()


def listener(path: str) -> Listener:
    """CheckpointError, ProgramError: one line."""
    from nnac import checkpoint
    from nnac.decode.recogniser import KIND, load_recogniser
    from nnac.decode.scorers import scorer

    try:
        kind = checkpoint.load(path).metadata.get("kind")
    except checkpoint.CheckpointError as error:
        if "not an nnac checkpoint" not in str(error):
            raise
        return _program(path)
    import torch

    if kind == KIND:
        r = load_recogniser(path)
        front = FrontEnd(r.features, r.normalisation, r.tokens)
        return Listener(scorer(r.model), front, torch.from_numpy, checkpoint.digest_of(path))
    from nnac.train.policy import load_module

    trained = load_module(path)
    return Listener(scorer(trained.module), trained.front, torch.from_numpy, checkpoint.digest_of(path))


def front_of(path: str) -> FrontEnd:
    """The front end of a float network, a training module or a program.  CheckpointError, ProgramError: one line."""
    from nnac import checkpoint
    from nnac.decode.front_end import FrontEnd, front_end_of
    from nnac.errors import ABSURD
    from nnac.program import Program

    if not checkpoint.is_checkpoint(path):
        return front_end_of(Program.load(path))
    meta = checkpoint.load(path).metadata
    try:
        # a float network says at its top what a trained module says under this name
        return FrontEnd.from_json(meta.get("front_end", meta))
    except ABSURD as error:
        raise checkpoint.CheckpointError(f"{path}: carries no front end (features, normalisation, tokens): "
                                         f"{' '.join(str(error).split())[:120]}") from None


def _program(path: str) -> Listener:
    from hashlib import sha256

    from nnac.decode.front_end import front_end_of
    from nnac.decode.integer import IntegerStepper
    from nnac.emulator.executor import Emulator
    from nnac.files import read
    from nnac.program import Program

    program = Program.load(path)
    entries, stepper = tuple(program.metadata.get("languages", {})), IntegerStepper(Emulator(program))
    return Listener(stepper, front_end_of(program), None, sha256(read(path)).hexdigest(), entries)
