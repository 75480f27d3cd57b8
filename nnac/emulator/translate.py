"""Code translated once into large array operations, equal to `interpret` bit for bit.

Two halves: the data flow (`nnac.emulator.dataflow`), and the joining of what is alike and independent
(`nnac.emulator.translation`): the MVMs of all row bands that read the same activations become one matrix product with
their RQs, the LSTM instructions of a layer one LSTM step.

What is assumed of the memories at the start (parameters that lie in A, pinned weights, LUTs, decoder tables) is checked
before every run (`Translation.holds`); if it changed, the code is translated again.  An instruction that cannot be
translated is interpreted, with those before and after it that share its accumulators (`cut`); `Interpreted.reason` says
why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnac.emulator.dataflow import Dataflow, Untranslatable
from nnac.emulator.errors import MachineError
from nnac.emulator.image import Entry
from nnac.emulator.memory import Memories
from nnac.emulator.translation import Interpreted, Translation, build
from nnac.isa import LDT, LDW, Instruction
from nnac.isa.base import Range


def translate(e: Entry, m: Memories, first: int = 0, end: int | None = None) -> Translation | Interpreted:
    """A translation of (part of) entry ``e`` for a machine whose memories are as they are now."""
    code = e.code[first:end]
    flow = Dataflow(m)
    try:
        _decode_ahead(code, m)
        flow.walk(code)
        return build(e, flow)
    except Untranslatable as reason:
        return Interpreted(e, str(reason), reason.at)
    except MachineError as reason:
        return Interpreted(e, str(reason))


def accumulators(ranges: Iterable[Range]) -> set[int]:
    """Columns of ACC among what an instruction reads or writes."""
    return {k for space, first, end in ranges if space == "ACC" for k in range(first, end)}


def cut(e: Entry, first: int, end: int, at: int) -> tuple[int, int]:
    """The fewest instructions around instruction ``at`` of first … end-1 between which and the others no accumulator is
    handed on."""
    # columns that are filled before an instruction and read by it or later
    live: set[int] = set()
    low, high = first, end
    for k in reversed(range(first, end)):
        i = e.code[k]
        live = (live - accumulators(i.writes(e.config))) | accumulators(i.reads(e.config))
        if not live and k > at:
            high = k
        if not live and k <= at:
            low = k
            break
    return low, high


def _decode_ahead(code: Sequence[Instruction], m: Memories) -> None:
    """Decode the tiles of each tensor together: the codecs work on many at once."""
    headers = list(m.headers)
    groups: dict[tuple[bytes, int], list[LDW]] = {}
    for i in code:
        if isinstance(i, LDT):
            headers[i.table] = m.streams.header(i)
        elif isinstance(i, LDW) and not m.streams.known(headers[i.table], i):
            groups.setdefault((headers[i.table], i.cols), []).append(i)
    for (header, _), tiles in groups.items():
        m.streams.decode(header, tiles)
