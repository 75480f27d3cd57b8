"""``nnac`` and ``python -m nnac``: the command line, with nothing outside that a Ctrl-C could meet.

Python raises KeyboardInterrupt wherever it is, in the middle of an import too, where C code may turn it into another
exception; so what was asked for is noted, and whatever comes of it ends in one word and status 130.
"""

import gc
import sys


def main() -> int:
    """Run the command line of this process; its exit status."""
    # the builtin: `signal` itself takes milliseconds, in which an interrupt would be a traceback
    import _signal as signal

    asked = []

    def note(number: int, frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    # not where SIGINT is ignored: under nohup, in the background
    ours = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL)
    try:
        try:
            if ours:
                signal.signal(signal.SIGINT, note)
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
