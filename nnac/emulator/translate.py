"""An entry translated once into large array operations, equal to `interpret` bit for bit.

Two halves: the data flow (`nnac.emulator.plan`), and the joining of what is alike and independent (`nnac.emulator.steps`): the MVMs of all
row bands that read the same activations become one matrix product with their RQs, the LSTM instructions of a layer one LSTM step.

What is assumed of the memories at the start (parameters that lie in A, pinned weights, LUTs, decoder tables) is checked before every
run (`Plan.holds`); if it changed, the entry is translated again.  An entry that cannot be translated is interpreted; `Interpreted.reason` says why.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnac.emulator.errors import MachineError
from nnac.emulator.image import Entry
from nnac.emulator.memory import Memories
from nnac.emulator.plan import Trace, Untranslatable
from nnac.emulator.steps import Interpreted, Plan, build
from nnac.isa import LDT, LDW, Instruction


def translate(e: Entry, m: Memories, first: int = 0, end: int | None = None) -> Plan | Interpreted:
    """A plan for (part of) entry ``e`` on a machine whose memories are as they are now."""
    code = e.code[first:end]
    trace = Trace(m)
    try:
        _decode_ahead(code, m)
        trace.walk(code)
        return build(e, trace)
    except (Untranslatable, MachineError) as reason:
        return Interpreted(e, str(reason))


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
