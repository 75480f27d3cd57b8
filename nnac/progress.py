"""Progress of long work: a live bar on a terminal, one line a stage in a log (and one
every five minutes of a stage as long as that), nothing when told to be quiet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nnac.console import console

Advance = Callable[..., None]  # advance(amount=1, note="loss 3.2")


@contextmanager
def progress(title: str, total: int, quiet: bool = False, done: int = 0, every_s: float = 300.0) -> Iterator[Advance]:
    """Yields ``advance(amount, note)``.  Writes to stderr, so that stdout stays the result's."""
    if quiet:
        yield lambda amount=1, note="": None
    elif sys.stderr.isatty():
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=console(sys.stderr), speed_estimate_period=120) as bar:
            task = bar.add_task(title, total=total, completed=done, note="")

            def advance(amount: int = 1, note: str = "") -> None:
                bar.update(task, advance=amount)
                if note:
                    bar.update(task, note=note)

            yield advance
    else:
        start = last = time.monotonic()
        kept = ""

        def say(rest: str) -> None:
            print(f"{title}: {done}/{total}, {time.monotonic() - start:.0f} s{rest}  {kept}".rstrip(), file=sys.stderr,
                  flush=True)

        begun = done

        def advance(amount: int = 1, note: str = "") -> None:
            nonlocal done, last, kept
            done, kept, now = done + amount, note or kept, time.monotonic()
            if done < total and now - last >= every_s:
                last = now
                say(f", {(now - start) / max(1, done - begun) * (total - done):.0f} s left")

        try:
            yield advance
        except BaseException:
            if done > begun:                         # else nothing of it has happened, and the error says why
                say(", stopped")
            raise
        say("")
