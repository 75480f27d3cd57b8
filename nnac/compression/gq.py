"""GQ, a general quantiser without regulariser."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from nnac.compression.base import Form, Method, argument, method
from nnac.compression.forms import Exponential, MuLaw
from nnac.units import Change


@method("weights")
@frozen
class Gq(Method):
    """GQ, a general quantiser without regulariser: soft assignment to self-adjusting centroids in mu-law space, annealed to hard.

    Source: Zhen et al., SLT 2022, arXiv 2210.09188.  Seen: softmax annealing, mu-law-constrained centroids, no regulariser, bit depth per
    kernel, quantisation frequency.  Reconstruction: the formulas (METHODS §2); mu, schedule and frequency defaults are our choice.
    """

    granularity: ClassVar[str] = "tensor"
    codebook: ClassVar[bool] = True

    bits: int = argument("integer", low=1, high=8, positional=True, doc="width of an index: 2^bits centroids")
    space: Form = argument("form", default=MuLaw(), form="space", doc="space in which the centroids are uniform")
    anneal: Form = argument("form", default=Exponential(Change(2.0, 300.0)), form="anneal",
                            doc="inverse temperature of the soft assignment, per distance between centroids; hard when it ends")
    frequency: int = argument("integer", default=1, low=1, high=100000, doc="while soft, quantise on every n-th step only")
    snap: str = argument("choice", default="int8", choices=("int8", "int16"), doc="integers that the centroids are rounded to")
