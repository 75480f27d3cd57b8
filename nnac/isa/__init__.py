"""The instruction set: one class an instruction, in the registry; bytes, text and manual follow from the class."""

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
from nnac.isa.config import SEMAPHORES, UNITS, MachineConfig
from nnac.isa.control import HALT, HOST, PROF
from nnac.isa.dma import GTH, LDA, STA, DmaInstruction
from nnac.isa.matrix import MVM
from nnac.isa.move import AMAX, CPY, FIL, TAB
from nnac.isa.vector import ADD, LN, LSTM, LUT, MUL, RQ, SMAX, VectorInstruction
from nnac.isa.weights import LDT, LDW, StreamInstruction

__all__ = ["ADD", "AMAX", "CPY", "FIL", "GTH", "HALT", "HOST", "INSTRUCTION_BYTES", "LDA", "LDT", "LDW", "LN", "LSTM", "LUT", "MUL", "MVM",
           "PROF", "RQ", "SEMAPHORES", "SMAX", "STA", "TAB", "UNITS", "DmaInstruction", "EncodingError", "Field", "Instruction", "MachineConfig",
           "StreamInstruction", "VectorInstruction", "by_opcode", "decode", "decode_all", "encode_all", "registry"]
