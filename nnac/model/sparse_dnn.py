"""Deep networks of thin layers: the Sparse DNN Graph Challenge's, as a model that policies compress and machines run.

Each layer is ``min(max(W y + b, 0), 32)`` with 32 weights of 1/16 a neuron, at the places that `topology` says: layers
0 … p-1 of N = 16 * 2^p neurons are a RadiX-Net, ``1[16 x 16] (x) (I + P^(-2^l))`` on 2^p nodes with P the cyclic shift;
every later group of p layers is the first with its rows permuted, one permutation a group: the ranks of N draws of
MATLAB's default stream. The challenge adds the bias where a sum has entries.  Its biases are negative, so that
elsewhere the ReLU gives 0 as well: the same. Source: Kepner, Alford, Gadepally, Jones, Milechin, Robinett, Samsi,
"Sparse Deep Neural Network Graph Challenge", HPEC 2019, arXiv 1909.05631; Kepner and Robinett, "RadiX-Net", 2019.
Reconstruction: the permutations are not published; all 120 layers of the 1,024-neuron network are the official files
bit for bit (tests/test_challenge.py), the larger networks follow the same rule, unchecked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnac.entry import EntryPoint
from nnac.model.graph import Kernel, Layer, ModelError, ModelGraph, builder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Columns = NDArray[np.int64]        # [neurons, 32]: to which neurons each one goes, increasing

STEP = EntryPoint("network")
BIAS = {1024: -0.30, 4096: -0.35, 16384: -0.40, 65536: -0.45}      # of the challenge's sizes
DEGREE, WEIGHT, CAP = 32, 1 / 16, 32.0
_SEED = 5489                   # MATLAB's default stream; NumPy's RandomState of that seed draws the same numbers


@builder
def sparse_dnn(neurons: int = 1024, *, layers: int = 120, topology: str = "radix", cap: float = CAP) -> ModelGraph:
    """A network of ``layers`` layers of ``neurons`` neurons each, a power of two of at least 32.

    topology  radix: the challenge's, of which `weights` are      cap  what an activation is limited to
    """
    if not isinstance(neurons, int) or isinstance(neurons, bool) or not 32 <= neurons <= 1 << 16 or neurons & (neurons -
        1):
        raise ModelError(f"`neurons` of a sparse DNN is a power of two from 32 to 65536, not {neurons!r}")
    if not isinstance(layers, int) or isinstance(layers, bool) or not 1 <= layers <= 1920:
        raise ModelError(f"`layers` of a sparse DNN is a whole number from 1 to 1920, not {layers!r}")
    if topology != "radix":
        raise ModelError(f"`topology` of a sparse DNN is radix, not {topology!r}")
    if isinstance(cap, bool) or not isinstance(cap, (int, float)) or not 0 < cap < 1e6:
        raise ModelError(f"`cap` of a sparse DNN is a number above 0, not {cap!r}")
    out: list[Layer] = []
    for k in range(layers):
        path, source = f"network.layer[{k}]", out[-1].path if out else "image"
        out.append(Layer(path, "linear_relu", (source,), neurons, 1, STEP.name,
                         (Kernel("weight", f"{path}.weight", neurons, neurons),),
                         dict(bias=True, cap=float(cap))))
    arguments = dict(neurons=neurons, layers=layers, topology=topology, cap=cap)
    return ModelGraph("sparse_dnn", arguments, tuple(out), dict(image=neurons), entries=(STEP,))


def base_layer(neurons: int, layer: int) -> Columns:
    """Layer ``layer`` < p of the RadiX-Net: where each neuron goes, increasing."""
    import numpy as np

    nodes = neurons // 16
    i = np.arange(neurons) % nodes
    two = np.stack([i, (i - (1 << layer)) % nodes], 1)
    return np.sort((two[:, :, None] + nodes * np.arange(16)).reshape(neurons, DEGREE), 1)


def topology(neurons: int, layers: int) -> Iterator[Columns]:
    """Where each neuron of every layer goes.  ValueError: ``neurons`` is not 16 times a power of two, at least 32."""
    import numpy as np

    period = (neurons // 16).bit_length() - 1
    if neurons != 16 << max(0, period) or period < 1:
        raise ValueError(f"a network has 16 * 2^p neurons, not {neurons}")
    stream = np.random.RandomState(_SEED)
    base = [base_layer(neurons, k) for k in range(min(period, layers))]
    order = np.arange(neurons)
    for k in range(layers):
        if k and k % period == 0:
            order = np.argsort(np.argsort(stream.rand(neurons), kind="stable"), kind="stable")
        yield base[k % period][order]


def digest(layer: Columns) -> str:
    """SHA-256 of a layer's columns, row by row, as 32-bit little-endian integers from 0; 16 hex digits."""
    import hashlib

    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(np.sort(layer, 1), "<u4").tobytes()).hexdigest()[:16]


def weights(neurons: int, layers: int, bias: float | None = None) -> dict[str, NDArray]:
    """The challenge's weights under the names of a float state dict, dense float32: what a training module of the model
    is made of.

    bias  default: the challenge's for that size.  ModelError: it has none, or ``bias`` > 0, which would stand where no
          sum is.
    """
    import numpy as np

    b = BIAS.get(neurons) if bias is None else bias
    if b is None or b > 0:
        raise ModelError(f"the bias of a sparse DNN of {neurons} neurons is a number of at most 0, not {b}")
    out: dict[str, NDArray] = {}
    for k, columns in enumerate(topology(neurons, layers)):
        w = np.zeros((neurons, neurons), np.float32)
        w[columns, np.arange(neurons)[:, None]] = WEIGHT              # [to, from]
        out[f"network.layer.{k}.weight"], out[f"network.layer.{k}.bias"] = w, np.full(neurons, b, np.float32)
    return out
