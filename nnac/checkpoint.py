"""Checkpoints: named tensors and JSON metadata in one safetensors file, versioned and checked.

The file's metadata has one key, ``nnac-checkpoint``, whose JSON holds ``version``, ``content`` (JSON text) and
``sha256`` over the content and over name, type, shape and bytes of every tensor: a file cut short or altered anywhere
is refused with one line. One key, because safetensors writes several in any order: so the same contents are the same
bytes.  Written whole or not at all. No pickle: reading a checkpoint runs no code of its author.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.checked import parse_json
from nnac.errors import ABSURD, UserError
from nnac.files import FileError, atomic, check_mapped

FORMAT, VERSION = "nnac-checkpoint", 1
MODULE = "nnac-training-module"          # the kind of what `nnac train` writes under a policy


class CheckpointError(UserError):
    """The file is absent, damaged, altered or of another kind; one line that begins with its name."""


@frozen(eq=False)
class Checkpoint:
    """Tensors by name, and the metadata that `save` was given."""

    tensors: dict[str, NDArray]
    metadata: dict[str, Any]

    def under(self, prefix: str) -> dict[str, NDArray]:
        """The tensors whose names begin with ``prefix``, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def state_dict(self, prefix: str = "") -> dict[str, Any]:
        """As `under`, as torch tensors for ``load_state_dict``."""
        import torch

        return {k: torch.from_numpy(v.copy()) for k, v in self.under(prefix).items()}


def _digest(tensors: Mapping[str, NDArray], content: str) -> str:
    total = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"\0{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _array(value: Any) -> NDArray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, order="C")            # ascontiguousarray would make a number a vector of one


def save(path: str | os.PathLike, tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write NumPy arrays or torch tensors, and whatever JSON can hold."""
    from safetensors.numpy import save as serialise

    arrays = {name: _array(value) for name, value in tensors.items()}
    content = json.dumps(metadata, sort_keys=True, allow_nan=False)
    header = {"version": VERSION, "content": content, "sha256": _digest(arrays, content)}
    with atomic(path) as out:
        out.write(serialise(arrays, {FORMAT: json.dumps(header, sort_keys=True)}))


def load(path: str | os.PathLike, kind: str | None = None) -> Checkpoint:
    """Read and check.  ``kind``: what ``metadata["kind"]`` must be.  CheckpointError: one clear line."""
    from safetensors import SafetensorError, safe_open

    try:
        check_mapped(path)
    except FileError as error:
        raise CheckpointError(str(error)) from None
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(FORMAT)
            if text is None:
                raise CheckpointError(f"{path}: not an nnac checkpoint")
            header = parse_json(text)
            if header["version"] != VERSION:
                raise CheckpointError(f"{path}: checkpoint version {str(header['version'])[:40]}; this nnac reads "
                                      f"version {VERSION}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        content = header["content"]
        if _digest(tensors, content) != header["sha256"]:
            raise CheckpointError(f"{path}: altered or damaged: its contents do not match its checksum")
        metadata = parse_json(content)
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no table")
    except CheckpointError:
        raise
    except (SafetensorError, OSError, *ABSURD) as error:
        raise CheckpointError(
            f"{path}: not a whole checkpoint file "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None
    if kind is not None and metadata.get("kind") != kind:
        raise CheckpointError(f"{path}: holds {str(metadata.get('kind'))[:60]!r}, expected {kind!r}")
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
            raise CheckpointError(f"{path}: {name}{list(at) if at else ''} is {value[at]}, not finite: no checkpoint "
                                  f"holds such numbers")
    return Checkpoint(tensors, metadata)


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file calls itself a checkpoint; it may be damaged, or of another kind.  CheckpointError: there is
    none."""
    from safetensors import SafetensorError, safe_open

    try:
        check_mapped(path)
    except FileError as error:
        raise CheckpointError(str(error)) from None
    try:
        with safe_open(path, "numpy") as file:
            return FORMAT in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def described(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata, without reading the tensors, so unchecked.  CheckpointError as `load`."""
    try:
        metadata = parse_json(_header(path)["content"])
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no table")
        return metadata
    except ABSURD as error:
        raise CheckpointError(f"{path}: not a whole checkpoint file ({error})") from None


def digest_of(path: str | os.PathLike) -> str:
    """The checksum a checkpoint carries, without reading its tensors.  CheckpointError as `load`."""
    digest = _header(path).get("sha256")
    if not isinstance(digest, str):
        raise CheckpointError(f"{path}: not a whole checkpoint file (its checksum is no text)")
    return digest


def _header(path: str | os.PathLike) -> dict[str, Any]:
    """Version, content and checksum, as they are written."""
    from safetensors import SafetensorError, safe_open

    try:
        check_mapped(path)
    except FileError as error:
        raise CheckpointError(str(error)) from None
    try:
        with safe_open(path, "numpy") as file:
            header = parse_json((file.metadata() or {})[FORMAT])
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
        return header
    except (SafetensorError, OSError, *ABSURD) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint file ({error})") from None
