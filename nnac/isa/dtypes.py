"""The parameter blocks of `nnac.isa.vector` as NumPy records."""

from __future__ import annotations

import numpy as np

RQ_DTYPE = np.dtype([("bias", "<i4"), ("multiplier", "<u4")])                     # multiplier: 24 bits, then 8 bits of shift
RQ_WIDE_DTYPE = np.dtype([("low", "<u4"), ("high", "<i2"), ("m0", "<u2"), ("m1", "<u2"), ("shift", "u1"), ("zero", "u1")])
RQ_HEADER_DTYPE = np.dtype([("zero_point", "<i2"), ("bits", "u1"), ("zero", "u1"), ("more", "<u4")])
LSTM_DTYPE = np.dtype([("multiplier", "<u4"), ("shift", "u1"), ("bits", "u1"), ("fraction", "u1"), ("sigmoid", "u1"), ("tanh", "u1"),
                       ("tanh_cell", "u1"), ("zero", "<u2")])
ADD_DTYPE = np.dtype([("m0", "<u4"), ("m1", "<u4"), ("s0", "u1"), ("s1", "u1"), ("bits", "u1"), ("zero", "u1")])
MUL_DTYPE = np.dtype([("multiplier", "<u4"), ("shift", "u1"), ("bits", "u1"), ("zero_point", "<i2")])
LUT_DTYPE = np.dtype([("multiplier", "<u4"), ("shift", "u1"), ("bits", "u1"), ("zero_point", "<i2"), ("slot", "u1"), ("symmetry", "u1"),
                      ("zero", "<u2")])
LN_DTYPE = np.dtype([("epsilon", "<i8"), ("root_width", "<u4"), ("multiplier", "<u4"), ("shift", "u1"), ("bits", "u1"),
                     ("zero_point", "<i2"), ("zero", "<u4")])
SMAX_DTYPE = np.dtype([("multiplier", "<u4"), ("out_multiplier", "<u4"), ("shift", "u1"), ("out_shift", "u1"), ("bits", "u1"), ("slot", "u1"),
                       ("zero_point", "<i2"), ("zero", "<u2")])
