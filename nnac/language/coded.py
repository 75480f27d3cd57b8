"""How many bits weights take once they are encoded: at best, whatever they are, and as one expects of trained ones.

Expected: weights are taken as normally distributed, rounded as their method rounds, and coded at their entropy, which
is what the entropy codec reaches within 2 % (`make bench-codec`).  Trained kernels of the demo take 2 % less to 4 %
more than this says. At best: a codec that finds zeros, one that codes at the entropy and a codebook of one value take
next to nothing where all weights are alike, and nobody knows the weights before training.  `packed` takes a bit a
weight at least; `raw` takes what it takes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

from nnac.plan import SitePlan

ZERO_FINDING = ("zero_run", "block_bitmap", "entropy")          # codecs whose time and bytes depend on the weights
BLOCK = 16                                                      # weights of a block of the bitmap
# of kernels that share a sum, the one meets steps so much finer: see `scales`
SHARED = 3.0
# what entropy lacks to the index of a codebook: a normal distribution on its 2^bits best values (Lloyd-Max), from 6
# bits on as measured, for int8 values no longer lie close enough
CODEBOOK_LOSS = {1: 0.0, 2: 0.09, 3: 0.18, 4: 0.26, 5: 0.32, 6: 0.5, 7: 0.8, 8: 1.2}
# of a codebook's entropy is left where the kernel shares its sum (measured)
FINER = 0.8


def sparsity(site: SitePlan) -> Fraction:
    """The share of a site's weights that become zero."""
    how = site.sparsity
    if how is None:
        return Fraction(0)
    target = getattr(how, "target", None)
    if target is not None:
        return Fraction(target).limit_denominator(10**6)
    n, m = getattr(how, "n", 1), getattr(how, "m", 1)
    return 1 - Fraction(n, m)


def by_blocks(site: SitePlan) -> bool:
    """Whether zeros come in blocks that the machine knows."""
    return site.sparsity is not None and getattr(site.sparsity, "block", 1) % BLOCK == 0


def codecs(codec: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """The codecs that may carry a kernel on a machine that reads ``known``; ``codec`` is what the policy says of the
    kernel."""
    return known if codec in (None, "auto") else (str(codec),)


def least_bits(site: SitePlan, able: tuple[str, ...]) -> int:
    """Bits that a weight takes at the least, whatever its value, if one of ``able`` carries it."""
    if not set(able) <= {"raw", "packed"}:
        return 0
    assert site.weights is not None
    wide = site.weights.multiplied_bits > 8
    return (16 if wide else 8) if set(able) == {"raw"} else 1


def expected_bits(site: SitePlan, sharing: int, able: tuple[str, ...], finer: bool = False) -> float:
    """Bits that one expects a weight to take.

    sharing  weights that share a scale       able  codecs that may carry it
         finer  the kernel shares its sum with one that meets coarser steps, so its codes are small
    """
    w = site.weights
    assert w is not None
    if w.method is None:
        return float(w.bits)
    zeros = float(sparsity(site))
    packed = 8.0 if set(able) <= {"raw"} and w.bits <= 8 else float(16 if w.bits > 8 else w.bits)
    if not any(c in ZERO_FINDING for c in able):
        return packed
    if type(w.method).codebook:
        dense = (w.bits - CODEBOOK_LOSS.get(w.bits, 1.2)) * (FINER if finer and w.bits > 1 else 1.0)
    else:
        dense = _uniform(w.bits, _clip(w.method.keyword, w.bits, sharing) * (SHARED if finer else 1.0))
    coded = (1 - zeros) * dense + (1 / BLOCK if by_blocks(site) else _information(zeros))
    return min(packed, coded) if "entropy" in able else min(packed, 1 / BLOCK + (1 - zeros) * packed if by_blocks(site)
                                                            else packed)


def _information(p: float) -> float:
    """Bits of an event of probability ``p``."""
    return 0.0 if p in (0.0, 1.0) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _clip(method: str, bits: int, sharing: int) -> float:
    """The outermost level in standard deviations: the largest of so many normal magnitudes, or what a method cuts them
    at."""
    n = max(2, 2 * sharing)
    root = math.sqrt(2 * math.log(n))
    largest = root - (math.log(math.log(n)) + math.log(4 * math.pi) - 2 * 0.5772) / (2 * root)
    # the clip of least mean square error grows by about half a deviation a bit: 1.2 at 2 bits, 2.6 at 4, 3.9 at 8
    return largest if method == "minmax" else min(largest, 1.2 + 0.7 * (bits - 2) if bits < 5 else 2.6 +
                                                  0.33 * (bits - 4))


@cache
def _uniform(bits: int, clip: float) -> float:
    """Entropy of a normal distribution rounded to 2^bits - 1 even steps within ``clip`` deviations."""
    if bits == 1:
        return 1.0
    top = (1 << (bits - 1)) - 1
    step = clip / top
    if step < 0.1:                                              # so fine that the sum is its integral
        return math.log2(math.sqrt(2 * math.pi * math.e) / step)
    out, below = 0.0, 0.0
    for k in range(-top, top + 1):
        up = 1.0 if k == top else 0.5 * (1 + math.erf((k + 0.5) * step / math.sqrt(2)))
        p, below = up - below, up
        out -= p * math.log2(p) if p > 0 else 0.0
    return out
