"""The one console: what people name their files, layers and policies is shown as it is, never taken for rich's markup
or emoji."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console on ``file`` (standard output) that prints texts as they stand."""
    from rich.console import Console

    return Console(file=sys.stdout if file is None else file, width=width, markup=False, emoji=False, highlight=False)
