"""The instruction set: one class an instruction, in the registry; bytes, text and manual follow from the class.

Needs no NumPy until an instruction is executed, and no instruction until one is named: lint asks `nnac.isa.config` for
the machine and `nnac.isa.beats` for the formulas that the instructions' own ``cycles`` use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnac.isa.config import BANKS, DECODE_DRAIN, MV_DRAIN, SEMAPHORES, TILE_WORDS, UNITS, VX_FILL, MachineConfig

if TYPE_CHECKING:
    from nnac.isa.base import (
        INSTRUCTION_BYTES,
        EncodingError,
        Field,
        Instruction,
        by_opcode,
        decode,
        decode_all,
        encode_all,
        registry,
    )
    from nnac.isa.control import HALT, HOST, PROF
    from nnac.isa.dma import GTH, LDA, STA, DmaInstruction
    from nnac.isa.matrix import MVM
    from nnac.isa.move import AMAX, CPY, FIL, TAB
    from nnac.isa.ring import DOT, DWC, KEEP, MIX
    from nnac.isa.vector import ADD, GATE, GRU, LN, LSM, LSTM, LUT, MUL, RQ, SMAX, VectorInstruction
    from nnac.isa.weights import LDT, LDW, StreamInstruction

__all__ = ["ADD", "AMAX", "BANKS", "CPY", "DECODE_DRAIN", "DOT", "DWC", "FIL", "GATE", "GRU", "GTH", "HALT", "HOST",
           "INSTRUCTION_BYTES", "KEEP", "LDA", "LDT", "LDW", "LN", "LSM", "LSTM", "LUT", "MIX", "MUL", "MVM",
           "MV_DRAIN", "PROF", "RQ", "SEMAPHORES", "SMAX", "STA", "TAB", "TILE_WORDS", "UNITS", "VX_FILL",
           "DmaInstruction", "EncodingError", "Field", "Instruction", "MachineConfig", "StreamInstruction",
           "VectorInstruction", "by_opcode",
           "decode", "decode_all", "encode_all", "registry"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nnac.isa import base

    found = next(getattr(module, name) for module in (base, *base.load()) if hasattr(module, name))
    globals()[name] = found
    return found
