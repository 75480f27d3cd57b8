"""Tensors of a checkpoint by name, whatever file they are in."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nnac.errors import UserError
from nnac.files import read

LIMIT = 1 << 36                # bytes of a checkpoint


class ImportError_(UserError):
    """A checkpoint that cannot be read, or does not fit its map; one line."""


def tensors(path: str | os.PathLike[str], inside: Sequence[str] = ()) -> dict[str, Tensor]:
    """Float tensors of a checkpoint.  ImportError_: it is none.

    inside   keys to look for a state dict under, the first that is there
    """
    data = read(path, LIMIT)
    try:
        if data[:1] != b"\x80" and _safe(data):
            from safetensors.torch import load

            return _checked(path, load(data))
        if tarfile.is_tarfile(io.BytesIO(data)):
            data = _weights(data)
        if not data.startswith((b"PK", b"\x80")):
            raise ValueError("neither an archive of tensors nor a pickle of them")
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except ImportError_:
        raise
    except pickle.UnpicklingError:
        raise ImportError_(f"{path}: holds more than tensors, and nothing of it was run; save its `state_dict()` "
                           "alone, or as safetensors") from None
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, AttributeError, TypeError, IndexError,
            tarfile.TarError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImportError_(f"{path}: no checkpoint (.pt, .pth, .ckpt, .nemo, .safetensors): {said}") from None
    return _checked(path, _state(found, inside))


def _safe(data: bytes) -> bool:
    """Whether the file is one of safetensors: a length, then JSON."""
    return len(data) > 9 and int.from_bytes(data[:8], "little") < len(data) and data[8:9] == b"{"


def _weights(data: bytes) -> bytes:
    """The weights within a `.nemo` archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.endswith((".ckpt", ".pt")) and (held := archive.extractfile(member)):
                return held.read()
    raise ImportError_("the archive holds no weights (model_weights.ckpt)")


def _state(found: Any, inside: Sequence[str]) -> Any:
    for key in (*inside, "state_dict", "model", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            return found[key]
    return found


def _checked(path: str | os.PathLike[str], found: Any) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise ImportError_(f"{path}: holds a {type(found).__name__}, not tensors by name")
    out = {str(k).removeprefix("module."): v.float() for k, v in found.items()
           if isinstance(v, Tensor) and v.is_floating_point()}
    if not out:
        raise ImportError_(f"{path}: holds no tensors of weights")
    if bad := [n for n, v in out.items() if not bool(v.isfinite().all())]:
        raise ImportError_(f"{path}: `{bad[0]}` holds values that are no numbers")
    return out
