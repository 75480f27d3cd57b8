"""The dense layer in a process of its own, held to an older set of instructions, so that it can take turns with forms
of another process.

    with Held("AVX2") as held:
        held.layer(512, 512, 64)                      # max(W Y + b, 0), W [512, 512], Y [512, 64]
        held.turn()                                   # seconds of one turn of each: {"torch": ..., "numpy": ...}

Libraries choose their code when they are loaded, by variables of the environment: hence a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch

# MKL and ATen under torch, oneDNN under torch, OpenBLAS under NumPy
ENVIRONMENT = {"AVX2": dict(MKL_ENABLE_INSTRUCTIONS="AVX2", ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2",
                            OPENBLAS_CORETYPE="Haswell")}


class Held:
    """That process."""

    def __init__(self, instructions: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "benchmarks.dense_held"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=os.environ | ENVIRONMENT[instructions])

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()                    # type: ignore[union-attr]
        self.process.wait()

    def _ask(self, what: Any) -> Any:
        pipe: IO[str] = self.process.stdin            # type: ignore[assignment]
        pipe.write(json.dumps(what) + "\n")
        pipe.flush()
        answer = self.process.stdout.readline()       # type: ignore[union-attr]
        if not answer:
            raise SystemExit("the process of the dense layer has ended: is there memory for its matrix?")
        return json.loads(answer)

    def layer(self, rows: int, cols: int, vectors: int) -> None:
        self._ask([rows, cols, vectors])

    def turn(self) -> dict[str, float]:
        return self._ask([])


def dense_forms(w: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """``max(W Y + b, 0)`` dense, by torch and by NumPy.  w [m, k], y [k, n], b [m]."""
    array, y_array, column = w.numpy(), y.numpy(), b.numpy()[:, None]
    if y.shape[1] > 1:
        return {"torch": lambda: torch.addmm(b[:, None], w, y).clamp_(min=0),
                "numpy": lambda: np.maximum(array @ y_array + column, 0)}
    one, bias = y[:, 0].contiguous(), b.numpy()
    return {"torch": lambda: torch.addmv(b, w, one).clamp_(min=0),
            "numpy": lambda: np.maximum(array @ one.numpy() + bias, 0)}


def seconds_of(form: Callable[[], Any], last: float, clock: Callable[[], float] = time.thread_time) -> float:
    """Of one call, right after another one where a call is short (``last`` seconds): with the caches that the form
    leaves to itself, not those that the others leave to it."""
    if last < 0.02:
        form()
    begun = clock()
    form()
    return clock() - begun


def serve() -> None:
    torch.set_num_threads(1)
    forms: dict[str, Callable[[], Any]] = {}
    took: dict[str, float] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked:
            m, k, n = asked
            forms = dense_forms(torch.randn(m, k) * k**-0.5, torch.randn(k, n), torch.randn(m))
            took = {name: seconds_of(form, 0.0) for name, form in forms.items()}
            print("true", flush=True)
            continue
        took = {name: seconds_of(form, took.get(name, 0.0)) for name, form in forms.items()}
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    serve()
