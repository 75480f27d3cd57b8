"""The files of language models that a policy names, as far as it takes to check and to price them: what `nnac train
--text` wrote, its weights unread."""

from __future__ import annotations

import os

from nnac import checkpoint
from nnac.errors import ABSURD, UserError
from nnac.plan import Plan


class LanguageFileError(UserError):
    """No language model that a program can hold; one line."""


def described(path: str | os.PathLike[str]) -> Plan:
    """The plan of the language model in a file, its weights unread.  LanguageFileError: there is none in it that a
    program can hold; CheckpointError: no whole file."""
    if not checkpoint.is_checkpoint(path):
        raise LanguageFileError(f"{path}: not what `nnac train` wrote: n-gram models stay on the host, which `nnac run "
                             "--lm` gives them to")
    metadata = checkpoint.described(path)
    try:
        if metadata.get("kind") != checkpoint.MODULE or set(metadata["front_end"]) != {"tokens"}:
            raise LanguageFileError(f"{path} is no language model: what `nnac train --text` made is one")
        return Plan.from_json(metadata["plan"])
    except ABSURD as error:
        raise LanguageFileError(f"{path}: does not describe a language model: {' '.join(str(error).split())[:300]}"
                             ) from None
