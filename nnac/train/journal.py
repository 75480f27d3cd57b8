"""The curves of a training, as files: OUT.log.jsonl, one JSON object a line, always; TensorBoard events, if asked for.

A training that goes on from step n drops what was written of later steps: these come again.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnac.errors import UserError
from nnac.files import append, atomic


class JournalError(UserError):
    """The journal cannot be written as asked; one clear line."""


class Journal:
    """``write`` takes what the loop reports: a dict with ``step`` and numbers."""

    def __init__(self, out: str, step: int, tensorboard: str | None = None) -> None:
        self.path = Path(out + ".log.jsonl")
        kept = "".join(json.dumps(line) + "\n" for line in _lines(self.path)
                       if line.get("step", 0) <= step) if step else ""
        with atomic(self.path, "w") as file:
            file.write(kept)
        self._file = append(self.path)
        self._events = _writer(tensorboard, step) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        self._file.write((json.dumps({"time": round(time.time(), 2)} | line) + "\n").encode())
        self._file.flush()
        if self._events is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an earlier journal; what is no line of one (cut short by a kill, damaged) is left out: curves
    are not worth a stop."""
    out = []
    for text in path.read_text("utf-8", errors="replace").split("\n")[:-1] if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(isinstance(line.get(k, 0), int | float) for k in ("step", "time")):
            out.append(line)
    return out


def seconds(out: str | Path) -> float:
    """How long a training took, all its sittings, pauses between them left out: from the times in its journal."""
    lines = [line for line in _lines(Path(f"{out}.log.jsonl")) if "time" in line]
    # the line that begins a sitting
    return sum(b["time"] - a["time"] for a, b in pairwise(lines) if "parameters" not in b)


def check_tensorboard() -> None:
    """JournalError if TensorBoard's events cannot be written here."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise JournalError("--tensorboard needs the package tensorboard: pip install 'nnac[log]' (OUT.log.jsonl is "
                           "written without it)") from None


def _writer(folder: str, step: int) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=step + 1 if step else None)
