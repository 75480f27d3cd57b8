"""Processes of a training: how they are started, meet, compute, and are stopped.

Started by `nnac.train.loop.train` on one machine, or by torchrun on several.  Ctrl-C ends a step, saves the state and
leaves; a second one leaves at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from nnac import children
from nnac.errors import UserError

Report = Callable[[dict], None]


class TrainingError(UserError):
    """Training cannot start or go on; one clear line."""


class Stopped(KeyboardInterrupt):
    """Somebody pressed Ctrl-C; the state is saved."""

    @classmethod
    def at(cls, step: int) -> Stopped:
        return cls(f"stopped at step {step}, which is saved; the same command goes on from there")


@contextmanager
def interruptible(then: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Within: the first SIGINT is noted (``asked()`` becomes true, ``then`` is called); the next does what it always
    did."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():     # signals are the main thread's
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)
        then()

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def device_of(name: str, rank: int = 0) -> torch.device:
    """The device of a rank.  TrainingError: no GPU here."""
    if name != "cuda":
        return torch.device(name)
    if not torch.cuda.is_available():
        why = "this PyTorch is built without CUDA" if torch.version.cuda is None else "PyTorch sees no GPU"
        raise TrainingError(f"--device cuda: {why} (torch {torch.__version__}); leave it out to train on the processor")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: each step asks for the same tensors again, and fresh pages cost 10 % of it
    (measured).

    Nothing happens with another C library.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3               # <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 1 << 28)):
        mallopt(option, value)


def run_processes(job: dict, world: int, report: Report) -> None:
    """``world`` fresh programs; rank 0 reports JSON lines on its stdout.  When this one dies, so do they."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(job))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                       "WORLD_SIZE": str(world), "NNAC_RENDEZVOUS": f"file://{folder}/store"}
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")      # one machine: do not depend on its name's address
        command = [sys.executable, "-m", "nnac.train.loop", f"{folder}/job.json"]
        ranks: list[subprocess.Popen] = []

        def pass_on() -> None:
            for process in ranks:
                process.send_signal(signal.SIGINT)

        try:
            for rank in range(world):
                # a file: a full pipe that nobody reads would stop the rank
                with open(f"{folder}/stderr{rank}", "wb") as log:
                    out = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
                    own = {**environment, "RANK": str(rank)}
                    # a session of their own: a terminal's Ctrl-C reaches them once, through this program
                    ranks.append(children.start(command, stdout=out, stderr=log, env=own, start_new_session=True))
            assert ranks[0].stdout is not None
            with interruptible(pass_on) as asked:
                for line in ranks[0].stdout:
                    if not line.startswith("{"):                       # a library's chatter
                        continue
                    message = json.loads(line)
                    if "error" in message:
                        raise TrainingError(message["error"])
                    if "stopped" in message:
                        raise Stopped.at(message["stopped"])
                    report(message)
                if ranks[0].wait() != 0:
                    if asked():
                        raise KeyboardInterrupt
                    last = Path(folder, "stderr0").read_text(errors="replace").strip().splitlines()
                    raise TrainingError(f"a training process ended early: {last[-1] if last else 'it left no message'}")
        finally:
            for process in ranks:
                process.terminate()
            for process in ranks:
                process.wait()


def check_free(out: str) -> None:
    """TrainingError: there is a file in the place of the result."""
    if os.path.exists(out):
        raise TrainingError(f"{out} is there already; remove it or choose another output")


@contextmanager
def alone(out: str, wait_s: float = 5.0) -> Iterator[None]:
    """Within: no other process trains into ``out``; its lock is the file OUT.lock.  TrainingError: another one does.

    wait_s  for one that is just ending, as those do whose parent was killed
    """
    lock = FileLock(f"{out}.lock")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise TrainingError(f"another run is training into {out}: wait for it, or choose another output") from None
    except OSError as error:
        raise TrainingError(f"{out}.lock: {error.strerror}") from None
    try:
        check_free(out)
        yield
        Path(lock.lock_file).unlink(missing_ok=True)   # whoever waits for it finds the output
    finally:
        lock.release()


@contextmanager
def rank_of_group(device: str) -> Iterator[tuple[int, int]]:
    """(rank, world) of this process, as its environment says; a process group while it lasts, if there are others."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield rank, world
        return
    here = device_of(device, rank)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    own = here.type == "cuda" and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", world))
    rendezvous = os.environ.get("NNAC_RENDEZVOUS", "env://")           # env://: torchrun's
    torch.distributed.init_process_group("nccl" if own else "gloo", init_method=rendezvous, rank=rank, world_size=world)
    try:
        yield rank, world
        torch.distributed.barrier()                # a rank that leaves early pulls the connection from under the others
    finally:
        torch.distributed.destroy_process_group()
