"""Programs that nnac starts and that must not outlive it, however it ends.

A child's standard input is a pipe whose other end this process holds and never writes to: when the process goes, by a
kill -9 too, the pipe closes, and the child, which watches it, leaves.  So do the child's own children.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

TIED = "NNAC_ENDS_WITH_ITS_INPUT"


def start(command: Sequence[str], *, stdout: int | IO[bytes] | None = None, stderr: int | IO[bytes] | None = None,
          env: Mapping[str, str] | None = None, start_new_session: bool = False) -> subprocess.Popen[str]:
    """As subprocess.Popen, of a program that calls `end_with_parent`."""
    import subprocess

    environment = {**(os.environ if env is None else env), TIED: "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=environment, text=True,
                            start_new_session=start_new_session)


def end_with_parent() -> None:
    """Where `start` began this program: leave as soon as the process that did so has gone.  Nothing happens in any
    other program."""
    if os.environ.pop(TIED, None) is None:
        return

    def watch() -> None:
        try:
            while os.read(0, 1):
                pass
        except OSError:
            pass
        os._exit(1)                                    # nobody is left to be told

    threading.Thread(target=watch, name="parent", daemon=True).start()
