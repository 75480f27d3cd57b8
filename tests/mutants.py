"""Programs broken on purpose, and who notices: a mutation is made on the instructions and encoded again, as a compiler
bug would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from attrs import evolve

from nnac import isa
from nnac.emulator.errors import MachineError
from nnac.isa import EncodingError, Instruction
from nnac.program import INIT, Program
from nnac.schedule.proof import decoded, prove_program
from nnac.schedule.verify import HazardError

Code = list[Instruction]
NOTICED = ("encoding", "verifier", "machine", "integers")


def with_code(program: Program, entry: str, code: Code) -> Program:
    """The program with other instructions in one entry.  EncodingError if an operand does not fit its field."""
    words = np.frombuffer(b"".join(i.encode() for i in code), "<u8").reshape(-1, 2)
    old = program.entries[entry]
    lines = old.lines if len(words) == len(old.lines) else np.resize(old.lines, len(words))
    return evolve(program, entries=dict(program.entries) | {entry: evolve(old, words=words, lines=lines)})


def semaphore_pairs(code: Code) -> Iterator[tuple[int, int, int]]:
    """(signalling instruction, waiting instruction, semaphore): the k-th wait with the k-th signal."""
    sent: dict[int, list[int]] = {}
    for at, i in enumerate(code):
        for s in isa.base.bits(i.wait):
            yield sent[s].pop(0), at, s
        for s in isa.base.bits(i.signal):
            sent.setdefault(s, []).append(at)


def _change(code: Code, at: int, **fields: int) -> Code:
    return [*code[:at], evolve(code[at], **fields), *code[at + 1:]]


def drop_semaphore(code: Code, rng: np.random.Generator) -> Code | None:
    """A wait and its signal, both gone."""
    pairs = list(semaphore_pairs(code))
    if not pairs:
        return None
    signaller, waiter, s = pairs[rng.integers(len(pairs))]
    code = _change(code, signaller, signal=code[signaller].signal & ~(1 << s))
    return _change(code, waiter, wait=code[waiter].wait & ~(1 << s))


def drop_wait(code: Code, rng: np.random.Generator) -> Code | None:
    pairs = list(semaphore_pairs(code))
    if not pairs:
        return None
    _, waiter, s = pairs[rng.integers(len(pairs))]
    return _change(code, waiter, wait=code[waiter].wait & ~(1 << s))


def drop_signal(code: Code, rng: np.random.Generator) -> Code | None:
    pairs = list(semaphore_pairs(code))
    if not pairs:
        return None
    signaller, _, s = pairs[rng.integers(len(pairs))]
    return _change(code, signaller, signal=code[signaller].signal & ~(1 << s))


def _pick(code: Code, rng: np.random.Generator, *fields: str) -> tuple[int, str] | None:
    found = [(at, f) for at, i in enumerate(code) for f in fields if any(x.name == f for x in i.fields)]
    return found[rng.integers(len(found))] if found else None


def overlap_buffers(code: Code, rng: np.random.Generator) -> Code | None:
    """A result goes where another instruction's result goes."""
    writers = [at for at, i in enumerate(code) if hasattr(i, "dst")]
    targets = sorted({i.dst for i in code if hasattr(i, "dst")})
    if len(targets) < 2:
        return None
    at = writers[rng.integers(len(writers))]
    other = targets[(targets.index(code[at].dst) + 1 + rng.integers(len(targets) - 1)) % len(targets)]
    return _change(code, at, dst=other)


def move_weights(code: Code, rng: np.random.Generator) -> Code | None:
    """A tile lands a few words off, so that two buffers overlap."""
    at = [at for at, i in enumerate(code) if isinstance(i, isa.LDW)]
    if not at:
        return None
    at = at[rng.integers(len(at))]
    return _change(code, at, word=max(0, code[at].word + int(rng.choice([-3, -1, 1, 3, 17]))) or 1)


def wrong_length(code: Code, rng: np.random.Generator) -> Code | None:
    """A length, one more or one less."""
    picked = _pick(code, rng, "words", "bytes", "rows", "cols", "live", "units", "n", "span")
    if picked is None:
        return None
    at, f = picked
    step = next(x for x in code[at].fields if x.name == f).times
    return _change(code, at, **{f: getattr(code[at], f) + step * int(rng.choice([-1, 1]))})


def wrong_address(code: Code, rng: np.random.Generator) -> Code | None:
    picked = _pick(code, rng, "act", "src", "dst", "pre", "cell", "params", "dram", "word", "index")
    if picked is None:
        return None
    at, f = picked
    step = next(x for x in code[at].fields if x.name == f).times
    return _change(code, at, **{f: getattr(code[at], f) + step * int(rng.choice([-8, -1, 1, 8]))})


def swap_instructions(code: Code, rng: np.random.Generator) -> Code | None:
    """Two neighbours in the other order."""
    at = int(rng.integers(len(code) - 1))
    return [*code[:at], code[at + 1], code[at], *code[at + 2:]]


def drop_instruction(code: Code, rng: np.random.Generator) -> Code | None:
    at = int(rng.integers(len(code)))
    return [*code[:at], *code[at + 1:]]


def flip_bit(code: Code, rng: np.random.Generator) -> Code | None:
    """Any bit of the instruction memory."""
    data = bytearray(b"".join(i.encode() for i in code))
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return isa.decode_all(bytes(data))


MUTATIONS: tuple[Callable[[Code, np.random.Generator], Code | None], ...] = (
    drop_semaphore, drop_wait, drop_signal, overlap_buffers, move_weights, wrong_length, wrong_address,
                                                                             swap_instructions, drop_instruction,
    flip_bit)


def noticed_by(program: Program, mutation: Callable, entry: str, rng: np.random.Generator,
               agrees: Callable[[Program], bool]) -> str | None:
    """Who notices: encoding | verifier | machine | integers; ``harmless``: proved, and every integer right; None:
    nothing to mutate.

    agrees  compares the mutant's integers with the reference
    """
    code = decoded(program.entries[entry])
    try:
        mutant = mutation(code, rng)
        if mutant is None or mutant == code:
            return None
        broken = with_code(program, entry, mutant)
        prove_program(broken)
    except EncodingError:
        return "encoding"
    except HazardError:
        return "verifier"
    try:
        return "harmless" if agrees(broken) else "integers"
    except MachineError:
        return "machine"


__all__ = ["INIT", "MUTATIONS", "NOTICED", "noticed_by"]
