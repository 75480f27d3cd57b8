"""What the activation quantiser asks of a method of activations: where its clips are, and how they learn.  Light:
imports nothing.

A value's integers reach as far as its clip: scale = clip / largest code.  A method reads the first clip off a
`Magnitudes` (what calibration saw of the value), or says it; a learned one is trained afterwards.  The gradients are
those of `nnac.compression._activations`.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

BINS = 4096                    # of a histogram of magnitudes, even


class Magnitudes(Protocol):
    """What was seen of a value: a histogram of its magnitudes."""

    @property
    def reach(self) -> float:
        """The largest magnitude seen; 1 where nothing but zeros was."""

    def percentile(self, percent: float) -> float:
        """The magnitude that ``percent`` % of what was seen lies below, at most ``reach``."""

    def value_at(self, percent: float) -> float:
        """The value (signed) that ``percent`` % of what was seen lies below."""

    def least_square_error(self, bits: int, candidates: int) -> float:
        """The clip, of ``candidates`` equal fractions of ``reach``, of least mean square error after rounding and
        saturation."""

    def least_divergence(self, bits: int, candidates: int) -> float:
        """The clip, of ``candidates`` equal fractions of ``reach``, of least Kullback-Leibler divergence between before
        and after."""


class ActivationRule:
    """Behaviour of a method of activations; the defaults are those of a clip that calibration finds, alike at both
    sides."""

    __slots__ = ()
    sides: ClassVar[Literal["both", "upper", "two"]] = "both"      # clips alike | from zero up | a lower one of its own
    learns: ClassVar[bool] = False                                 # the clips are parameters, trained afterwards
    # what calibration saw decides; False: the clip is said, or learned
    from_data: ClassVar[bool] = True
    # the rounding error is part of a learned clip's gradient
    plus: bool = True
    bins: int = BINS                                               # of the histogram

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        """The (upper) clip, positive."""
        raise NotImplementedError

    def low_clip_of(self, seen: Magnitudes, bits: int) -> float:
        """The lower clip of ``sides = "two"``, at most 0."""
        return 0.0

    def factor(self, elements: int, levels: int) -> float:
        """What the clips' gradients are multiplied with."""
        return 1.0
