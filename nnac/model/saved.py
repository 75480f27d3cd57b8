"""A model from a file: what `nnac import` wrote of another toolkit's checkpoint."""

from __future__ import annotations

import json
from typing import Any

from nnac.files import FileError, read_first
from nnac.model.graph import ModelError, ModelGraph, builder

KIND = "nnac-model"
HEADER = 1 << 26               # bytes of the description of a file
KEY = "nnac-checkpoint"        # of its metadata (`nnac.checkpoint`)


@builder
def saved(file: str = "") -> ModelGraph:
    """The model in ``file``, which `nnac import` wrote: ``model saved("mine.nnc")``.

    Its graph alone is read, from the file's first bytes: the linter needs no weights.
    """
    if not file:
        raise ModelError("`saved` wants the file that `nnac import` wrote: `model saved(\"mine.nnc\")`")
    try:
        size = int.from_bytes(read_first(file, 8), "little")
        if not 2 <= size <= HEADER:
            raise ValueError("no checkpoint of nnac")
        header: dict[str, Any] = json.loads(read_first(file, 8 + size)[8:])
        content = json.loads(json.loads(header["__metadata__"][KEY])["content"])
    except FileError as error:
        raise ModelError(str(error)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{file}: not what `nnac import` wrote") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ModelError(f"{file}: not what `nnac import` wrote")
    try:
        return ModelGraph.from_json(content.get("graph", {}))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None
