"""The RTL core of the machine, simulated: the program's bytes, cycle by cycle (`nnac.rtl`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnac.errors import UserError
from nnac.executors import Subject

if TYPE_CHECKING:
    from nnac.rtl.program import CoreExecutor


def executor(subject: Subject) -> CoreExecutor:
    try:
        from nnac.rtl.program import CoreExecutor
    except ImportError as error:
        raise UserError(
            f"the core is described in Amaranth, which is not installed ({error}): pip install 'nnac[rtl]'"
        ) from None
    return CoreExecutor(subject.program)
