"""The last frames side by side."""

from __future__ import annotations

from torch import Tensor

from nnac.attributes import record
from nnac.ops.window import WindowAttributes, windows
from nnac.train.format import Format
from nnac.train.ops import State
from nnac.train.ops.scale import Scale


class Window(Scale):
    """See `nnac.ops.window`: each frame requantised as `scale` does by 1, then joined."""

    @property
    def factor(self) -> float:
        return 1.0

    def lengths(self, lengths: Tensor) -> Tensor:
        return lengths // record(self.node.attributes, WindowAttributes).frames

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        return self.joined(super().integers(xs, ins, out, state, lengths), state)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return self.joined(super().reals(xs, state, lengths), state)

    def joined(self, x: Tensor, state: State) -> Tensor:
        """All windows; replaces the past."""
        a, name = record(self.node.attributes, WindowAttributes), f"{self.node.path}.past"
        made, past = windows(x, state.get(name), a)
        if past is not None:
            state[name] = past
        return made
