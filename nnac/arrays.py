"""Files of NumPy arrays, as people bring them: .npy and .npz, read with a check of every size before room is made for
it.

A header of a few bytes may promise terabytes, and six megabytes of .npz may unpack to as many gigabytes.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from tokenize import TokenError  # of headers, which are read as Python literals

import numpy as np
from numpy.typing import NDArray

from nnac.errors import UserError
from nnac.files import memory, read

LIMIT = 1 << 32                # bytes of a file, and of its arrays unpacked
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
ODD = (ValueError, EOFError, OSError, TypeError, SyntaxError, OverflowError, KeyError, MemoryError, RuntimeError,
       TokenError, struct.error, zlib.error, zipfile.BadZipFile)


class ArraysError(UserError):
    """A file that holds no arrays, damaged ones, or more than there is room for; one line."""


def read_arrays(path: str | os.PathLike[str]) -> NDArray | dict[str, NDArray]:
    """The array of a .npy, or those of a .npz by name; of numbers, truth values and texts, never of objects.
    FileError, ArraysError."""
    most = min(LIMIT, memory() // 4)
    data = read(path, most)
    try:
        if data[:2] != b"PK":
            return _array(data)
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            unpacked = sum(member.file_size for member in file.infolist())
            if unpacked > most:
                raise ArraysError(f"{path}: its arrays take {unpacked:,} bytes: at most {most:,} are read")
            return {member.filename.removesuffix(".npy"): _array(file.read(member)) for member in file.infolist()}
    except ODD as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise ArraysError(f"{path}: no file of arrays (.npy, .npz): {said}") from None


def _array(data: bytes) -> NDArray:
    """The array of a .npy's bytes.  One of `ODD`: it is none."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python's objects")
    if any(n < 0 for n in shape):
        raise ValueError(f"a shape of {list(shape)}")
    count, there = math.prod(shape), len(data) - file.tell()
    if count * dtype.itemsize > there:
        raise ValueError(f"its header promises {count * dtype.itemsize:,} bytes, {there:,} are there")
    if count == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if fortran else "C").copy()
