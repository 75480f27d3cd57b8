"""nnac: from a compression policy to a scheduled, bit-exact program for a neural network accelerator."""

from __future__ import annotations

TYPE_CHECKING = False          # `typing` takes milliseconds, in which a Ctrl-C is a traceback: nothing is imported here
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"


def _quiet_until_main() -> None:
    """Where nnac is the program that starts: a Ctrl-C before `nnac.__main__.main` ends it without a word, not in a
    traceback out of an import."""
    import _signal as signal
    import sys

    # `python -m nnac` is "-m" while Python looks for the module
    started = sys.argv[:1] == ["-m"] and "nnac" in getattr(sys, "orig_argv", ())
    if started and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_quiet_until_main()

# Name -> module.  Loaded when asked for, so that `import nnac` costs nothing.
_LAZY = {"load": "nnac.policy", "loads": "nnac.policy", "Policy": "nnac.policy", "Plan": "nnac.plan",
         "Target": "nnac.target",
         "Diagnostic": "nnac.diagnostics", "DiagnosticError": "nnac.diagnostics", "Problem": "nnac.diagnostics",
         "prepare": "nnac.train.prepare", "check": "nnac.train.prepare",
         "prepare_streaming": "nnac.train.prepare",
         "prepare_transducer": "nnac.train.transducer", "check_transducer": "nnac.train.transducer",
         # what may be raised or warned of (docs/models.md §6)
         "UserError": "nnac.errors", "FileError": "nnac.files", "CheckpointError": "nnac.checkpoint",
         "ProgramError": "nnac.program", "CompileError": "nnac.schedule.compile", "PlanError": "nnac.plan",
         "TooLongError": "nnac.evaluate",
         "PrepareError": "nnac.capture.problems", "UncalibratedError": "nnac.train.activation",
         "CalibrationError": "nnac.train.module", "CalibrationWarning": "nnac.train.module",
         "NotQuantisedError": "nnac.train.module", "ScaleError": "nnac.train.module",
         "FloatWeightsError": "nnac.train.module", "UnsuitableFormatError": "nnac.train.module",
         "ScheduleWarning": "nnac.train.quantiser"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'nnac' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
