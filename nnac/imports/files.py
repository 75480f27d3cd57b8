"""Tensors of a checkpoint by name, whatever file they are in."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nnac.errors import ABSURD, UserError
from nnac.files import read

LIMIT = 1 << 36                # bytes of a checkpoint
PACKING = 64                   # bytes that one byte of a file may stand for: weights are hardly compressed


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

            return _checked(path, load(data), PACKING * len(data))
        most = PACKING * len(data) + (1 << 20)
        if tarfile.is_tarfile(io.BytesIO(data)):
            data = _weights(data, most)
        if not data.startswith((b"PK", b"\x80")):
            raise ValueError("neither an archive of tensors nor a pickle of them")
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                _sensible(sum(member.file_size for member in archive.infolist()), most)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return _checked(path, _state(found, inside), most)
    except ImportError_:
        raise
    except pickle.UnpicklingError:
        raise ImportError_(f"{path}: holds more than tensors, and nothing of it was run; save its `state_dict()` "
                           "alone, or as safetensors") from None
    except (OSError, EOFError, SafetensorError, struct.error, zlib.error, tarfile.TarError, zipfile.BadZipFile,
            *ABSURD) as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImportError_(f"{path}: no checkpoint (.pt, .pth, .ckpt, .nemo, .safetensors): {said}") from None


def _safe(data: bytes) -> bool:
    """Whether the file is one of safetensors: a length, then JSON."""
    return len(data) > 9 and int.from_bytes(data[:8], "little") < len(data) and data[8:9] == b"{"


def _sensible(unpacked: int, most: int) -> None:
    if unpacked > most:
        raise ValueError(f"{unpacked:,} bytes when unpacked, of a file of {most // PACKING:,}")


def _weights(data: bytes, most: int) -> bytes:
    """The weights within a `.nemo` archive.  ValueError: more than ``most`` bytes of them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            _sensible(member.size, most)
            if member.isfile() and member.name.endswith((".ckpt", ".pt")) and (held := archive.extractfile(member)):
                return held.read()
    raise ImportError_("the archive holds no weights (model_weights.ckpt)")


def _state(found: Any, inside: Sequence[str]) -> Any:
    for key in (*inside, "state_dict", "model", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            return found[key]
    return found


def _checked(path: str | os.PathLike[str], found: Any, most: int) -> dict[str, Tensor]:
    """``most``: bytes that the tensors take; a few numbers repeated by strides of 0 say nothing of their size."""
    if not isinstance(found, Mapping):
        raise ImportError_(f"{path}: holds a {type(found).__name__}, not tensors by name")
    every = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    if odd := [n for n, v in every.items() if v.layout != torch.strided or v.device.type != "cpu"]:
        raise ImportError_(f"{path}: `{odd[0]}` is no plain tensor with its numbers")
    _sensible(sum(4 * v.numel() for v in every.values()), most)
    out = {str(k).removeprefix("module."): v.float() for k, v in found.items()
           if isinstance(v, Tensor) and v.is_floating_point()}
    if not out:
        raise ImportError_(f"{path}: holds no tensors of weights")
    if bad := [n for n, v in out.items() if not bool(v.isfinite().all())]:
        raise ImportError_(f"{path}: `{bad[0]}` holds values that are no numbers")
    return out
