"""``nnac`` and ``python -m nnac``: the command line, with nothing outside that a Ctrl-C could meet.

Python raises KeyboardInterrupt wherever it is, in the middle of an import too, where C code may turn it into another
exception; so what was asked for is noted, and whatever comes of it ends in one word and status 130.
"""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command line of this process; its exit status."""
    # the builtins: `signal` itself takes milliseconds, in which an interrupt would be a traceback
    import _signal as signal
    import _thread
    import time

    asked, here = [], _thread.get_ident()

    def note(number: int, frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    def again() -> None:
        time.sleep(0.02)
        signal.pthread_kill(here, signal.SIGINT)

    def lost(found: sys.UnraisableHookArgs) -> None:
        """Within a destructor or a weak reference's callback, Python prints KeyboardInterrupt and goes on as if nobody
        had asked: it is sent again a moment later, when that has ended."""
        if asked and found.exc_type is KeyboardInterrupt:
            _thread.start_new_thread(again, ())
        else:
            sys.__unraisablehook__(found)

    # not where SIGINT is ignored: under nohup, in the background
    ours = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL)
    try:
        try:
            if ours:
                signal.signal(signal.SIGINT, note)
                sys.unraisablehook = lost
            gc.disable()              # what is imported lives: looking for garbage in it takes milliseconds
            from nnac.cli import main as run

            gc.enable()

            return run()
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.SIG_DFL)      # while the interpreter ends: quietly
    except KeyboardInterrupt as e:
        return _interrupted(str(e))
    except Exception:
        if not asked:
            raise
        return _interrupted("")


def _interrupted(words: str) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"\n{words or 'interrupted'}\n")
    return 130


if __name__ == "__main__":
    sys.exit(main())
