"""A matrix of weights as a layer computes with it, by one native function: what `nnac.compression.minmax` on rows,
`bind.linear_scales` and `Rescale.of` say of it one after the other.  Training asks at every step, of every matrix.
"""

from __future__ import annotations

import ctypes

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith, bind
from nnac.compression._grids import largest
from nnac.train import native
from nnac.train.format import Format
from nnac.train.integers import Rescale, int8_products, is_wide
from nnac.train.ops import Quantiser
from nnac.train.ops._room import NEAR, Sums
from nnac.train.quantiser import WeightQuantiser

_INTEGERS = ("rows", "cols", "top", "multiplier_bits", "in_zero")
_REALS = ("in_scale", "out_scale", "products", "most", "most_bias")
_FLOATS = ("codes", "unit", "acc_scale")
_BYTES = ("bytes", "turned")
_CONSTANTS = ("factor", "offset", "multiplier", "shift", "biases")


class _Weights(ctypes.Structure):
    _fields_ = [*((n, ctypes.c_int64) for n in _INTEGERS), *((n, ctypes.c_double) for n in _REALS),
                *((n, ctypes.c_void_p) for n in ("w", "bias", *_FLOATS, *_BYTES, *_CONSTANTS)),
                *((n, ctypes.c_int64) for n in ("largest_bias", "largest_multiplier"))]


@frozen(eq=False)
class Weights:
    """codes [rows, cols], without a gradient: that of the weights is theirs over ``unit`` [rows]
    matrix  `integers.packed`      acc_scale  float32 [rows]: real value of one unit of the accumulator
    rescale  to the output"""

    codes: Tensor
    unit: Tensor
    matrix: Tensor
    acc_scale: Tensor
    rescale: Rescale


def weights(quantiser: Quantiser, weight: Tensor, bias: Tensor | None, x: Format, out: Format,
            bits: int = 8) -> Weights | None:
    """Of a layer whose accumulator has 32 bits and whose codes have at most ``bits``.  None: the layer goes the long
    way, because of its method, its size or the numbers themselves."""
    top = quantiser.outermost if isinstance(quantiser, WeightQuantiser) else None
    rows, cols = weight.shape
    if top is None or max(x.bits, bits) > 8 or min(rows, cols) < 2 or not native.usable(weight) or (
            not int8_products("cpu")):
        return None
    w, b = weight.detach(), None if bias is None else bias.detach()
    if not all(t is None or (t.dtype == torch.float32 and t.is_contiguous()) for t in (w, b)):
        return None
    codes, bytes_ = torch.empty(rows, cols), torch.empty(rows, cols, dtype=torch.int8)
    turned = torch.empty(cols, rows, dtype=torch.int8) if native.multiplies() else None
    unit, acc_scale, factor, offset = torch.empty(rows), torch.empty(rows), *torch.empty(2, rows, dtype=torch.float64)
    multiplier, shift, biases = torch.empty(3, rows, dtype=torch.int64)
    products = cols * largest(bits) * Sums(0, cols, x).step
    p = _Weights(rows, cols, top, arith.MULTIPLIER_BITS, x.zero_point, x.scale, out.scale, products, (1 << 31) * NEAR,
                 bind.bias_limit(False) * NEAR,
                 *(None if t is None else t.data_ptr() for t in (w, b, codes, unit, acc_scale, bytes_, turned, factor,
                                                                 offset, multiplier, shift, biases)))
    if not native.loaded().nnac_weights(ctypes.byref(p)):
        return None
    reach = cols << (x.bits + bits - 2)
    rescale = Rescale(factor, offset, biases, multiplier, shift, out.zero_point, out.bits,
                      is_wide(reach, p.largest_bias, p.largest_multiplier), reach < 1 << 31)
    return Weights(codes, unit, bytes_.t() if turned is None else turned, acc_scale, rescale)
