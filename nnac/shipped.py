"""What comes with nnac besides its code: policies, machines, and a trained float network.

In a checkout they are folders at its top; in a wheel they are in ``nnac/_data``.
"""

from __future__ import annotations

from pathlib import Path

_PLACES = (Path(__file__).parent / "_data", Path(__file__).parent.parent)
_NETWORKS = "networks"


def shipped(name: str) -> Path | None:
    """The file that comes with nnac under this name, ``specs/rnnt_int8.nnac`` say; None: there is none."""
    return next((place / name for place in _PLACES if (place / name).is_file()), None)


def specification(name: str) -> Path:
    """A policy file: of the working folder if it is there, else the one that comes with nnac."""
    local = Path(name)
    return local if local.is_file() else shipped(name) or local


def network(name: str) -> str:
    """A float network's file: ``name`` itself if there is such a file, else the one of this name that comes with nnac
    (``demo``).
    """
    if Path(name).exists() or not name.isidentifier():
        return name
    found = shipped(f"{_NETWORKS}/{name}.nnc")
    return name if found is None else str(found)
