"""Faults planted in the emulator's rules of time: the text of `nnac.emulator.timing` with one place changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import ModuleType

from nnac.emulator import timing
from nnac.emulator.timing import Timing
from nnac.isa import Instruction, MachineConfig

# (what is wrong, the text, what becomes of it)
RULES: tuple[tuple[str, str, str], ...] = (
    ("room in a queue is seen in the cycle of the start", "t = start[order[first[e] + k]] + 1",
     "t = start[order[first[e] + k]]"),
    ("two instructions are fetched in a cycle", "pc += 1\n            fetch_free = t + 1",
     "pc += 1\n            fetch_free = t"),
    ("an instruction stands in its queue as it is pushed", "look[e] = max(t + 1, can_start[e])",
     "look[e] = max(t, can_start[e])"),
    ("DA does not break in on DW", "elif da >= 0 and owner != da and da_ready <= c:",
     "elif da >= 0 and owner != da and da_ready <= c and c < 0:"),
    ("DW comes before DA", "if da >= 0 and da_ready <= c:\n                    grant = da",
     "if da >= 0 and da_ready <= c and granted == request:\n                    grant = da"),
    ("the latency counts from the start's own cycle", "t = start[order[granted]] + 1 + dram_latency",
     "t = start[order[granted]] + dram_latency"),
    ("a broken stream reads a burst again", "left[owner] -= k", "left[owner] -= k - 1"),
    ("the decoder takes a cycle more", "decode_at = c + extra[i]", "decode_at = c + extra[i] + 1"),
    ("the first wait is dropped", "if sem[wait[k]] == 0:", "if sem[wait[k]] == 0 and k > wait_at[i]:"),
    ("a wait takes nothing", "sem[wait[k]] -= 1", "sem[wait[k]] -= 0"),
    ("one request more may be on its way", "outstanding >= limit", "outstanding > limit"),
    ("the ring is never quite full", "ring + need[i] > room", "ring + need[i] >= room"),
    ("the ring's bytes do not come back", "ring -= need[culprit]", "ring -= 0"),
    ("MV signals a cycle late", "token2 = min(token2, done[i] + 1)", "token2 = min(token2, done[i] + 2)"),
    ("VX signals a cycle late", "token3 = done[i] + 1", "token3 = done[i] + 2"),
    ("CT goes on a cycle late", "token4 = fetch_free = done[i] + 1", "token4 = fetch_free = done[i] + 2"),
    ("a unit rests a cycle after each instruction", "can_start[e] = free[i] = c + busy[i]",
     "can_start[e] = free[i] = c + busy[i] + 1"),
    ("DA rests a cycle after each transfer", "look[1] = max(c, arrive[order[first[1] + popped[1]]])",
     "look[1] = max(c + 1, arrive[order[first[1] + popped[1]]])"),
    ("VX takes semaphores before MV", "for e in range(5):\n            if look[e] != c:",
     "for e in (0, 1, 3, 2, 4):\n            if look[e] != c:"),
    ("a burst that two streams share is read twice", "last - first + 1 - (first == held)", "last - first + 1"),
    ("a stream alone in a shared burst reads nothing", "max(1, last - first + 1 - (first == held))",
     "last - first + 1 - (first == held)"),
)


def planted(old: str, new: str) -> Callable[[Sequence[Instruction], MachineConfig], Timing]:
    """`simulate` of the module with ``new`` in the one place where ``old`` stands."""
    text = inspect.getsource(timing)
    assert text.count(old) == 1, f"`{old}` stands in {text.count(old)} places"
    module = ModuleType(timing.__name__)
    exec(compile(text.replace(old, new), timing.__name__, "exec"), module.__dict__)

    def rules(code: Sequence[Instruction], config: MachineConfig) -> Timing:
        made: Timing = module.simulate(code, config, compiled=False)
        return made

    return rules
