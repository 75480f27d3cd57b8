"""A model of a user's own, read back from its checkpoint: `nnac.train.prepare` made it, ``model module`` in its
policy."""

from __future__ import annotations

from nnac.train.families import family
from nnac.train.module import GraphModule, attribute_path

RESERVED = ("graph", "plan", "inputs", "captured", "signature", "dropouts", "training",
            # of `nnac.train.prepare.PreparedModule`
            "calibrate", "forward", "given_states", "keep_as_captured", "kept", "lengths", "load_float",
            "original_names", "original_state_dict", "put_state", "real", "reset", "save", "sequences", "state_of",
            "tie", "train", "untrainable", "values", "weights_of", "_kept", "_state_names", "_values")


@family
class Named(GraphModule):
    """A module whose layers may be called as anything at all."""

    def names_of(self, path: str) -> list[str]:
        """A layer that is called as something of this class is kept under another name."""
        first, *rest = attribute_path(path)
        return [f"{first}_" if hasattr(GraphModule, first) or first in RESERVED else first, *rest]
