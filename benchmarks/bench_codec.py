"""Bits per weight of our codecs, of Vela's mlw, and the entropy; and how fast we encode and decode.

    python benchmarks/bench_codec.py [--vela PYTHON] [--rows NAME ...] [--repeat N] [--json FILE]

--vela   an interpreter that has `ethos-u-vela` (5.2.0 was used for the published figures); also NNAC_VELA_PYTHON.
         Without it the column shows the published figures, marked as such.
Every row is 1024 x 1024 weights, headers, tables, bitmaps and padding included; tiles are 64 x 1024.  mlw gets the
better of its two orders (stream, Ethos-U65-512).  Every row is decoded and compared before it is printed.  Times are
CPU time of one thread. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nnac import codec

sys.path.insert(0, str(Path(__file__).parent))
import weight_cases as wc

# ethos-u-vela 5.2.0 on the same weights; the better of the two orders
PUBLISHED = {
    "gauss_int8_clip4": 7.144, "gauss_int8_clip3": 7.662, "uniform_int8": 8.001, "levels32_kmeans": 5.001,
             "levels16_kmeans": 4.001,
    "levels16_uniform(int4)": 3.433, "levels16_uniform_spread(int4*16)": 3.433, "levels16_equiprobable": 4.001,
             "levels4": 2.001,
    "binary": 1.001, "zeros50_mag": 4.680, "zeros75_mag": 2.681, "zeros90_mag": 1.222, "zeros50_rand": 4.510,
             "zeros75_rand": 2.575,
    "zeros90_rand": 1.174, "zeros50_blk16": 4.635, "zeros75_blk16": 2.738, "zeros90_blk16": 1.287,
             "levels16_zeros50_mag": 2.693,
    "levels16_zeros75_mag": 1.564, "int4_zeros75_mag": 1.553, "all_zero": 0.125,
    "zeros75_blk64x1": 2.602, "levels16_zeros75_blk64x1": 1.801,
}

VELA = """
import json, sys, time
import numpy as np
from ethosu import mlw_codec
from ethosu.vela.api import NpuBlockTraversal
from ethosu.vela.architecture_features import Accelerator
from ethosu.vela.weight_compressor import encode_weights
for name, file in json.load(sys.stdin).items():
    w = np.load(file).astype(np.int16)
    flat = w.ravel().tolist()
    start = time.process_time()
    stream = mlw_codec.encode(flat)
    spent = time.process_time() - start
    assert (np.array(mlw_codec.decode(stream))[:w.size] == w.ravel()).all(), name
    ordered, _ = encode_weights(Accelerator.Ethos_U65_512, w.reshape(w.shape[0], 1, 1, w.shape[1]), (1, 1), 8, 32,
                                False, NpuBlockTraversal.DEPTH_FIRST)
    print(json.dumps([name, min(len(stream), len(ordered)) * 8 / w.size, w.size / spent / 1e6]), flush=True)
"""


def mlw(python: str, rows: dict[str, NDArray[np.int8]]) -> dict[str, tuple[float, float]]:
    """name -> (bits a weight, million weights encoded a second) by the Vela that ``python`` has; RuntimeError: it has
    none."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for i, (name, matrix) in enumerate(rows.items()):
            files[name] = f"{folder}/{i}.npy"
            np.save(files[name], matrix)
        done = subprocess.run([python, "-c", VELA], input=json.dumps(files), capture_output=True, text=True)
    if done.returncode: raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return {name: (bits, speed) for name, bits, speed in map(json.loads, done.stdout.splitlines())}


def entropy_bits(matrix: NDArray[np.int8]) -> float:
    """Zero-order entropy, or, where it is lower, that of block bits and of the weights in live blocks."""
    return max(0.0, min(wc.entropy(matrix), *(wc.block_entropy(matrix, r, c) for r, c in ((1, 16), (16, 1), (64, 1)))))


def seconds(work, repeat: int) -> float:
    """Median CPU time."""
    spent = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def measure(name: str, matrix: NDArray[np.int8], repeat: int) -> dict:
    choice = codec.choose(matrix)
    encoded = choice.encoded
    again = codec.decode(codec.Encoded.from_bytes(encoded.to_bytes()))
    if not (again == matrix).all(): raise SystemExit(f"{name}: {choice.codec} does not decode to the weights")
    return {
        "name": name, "codec": choice.codec, "nnac_bits": round(codec.bits_per_weight(encoded), 5),
        "entropy_bits": round(entropy_bits(matrix), 5), "live_words": encoded.live_words, "words": encoded.words,
        "steps": sum(tile.steps for tile in encoded.tiles),
        "choose_s": seconds(lambda: codec.choose(matrix), repeat),
        "encode_s": seconds(lambda: codec.encode(matrix, choice.codec), repeat),
        "decode_s": seconds(lambda: codec.decode(encoded), repeat),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vela", default=os.environ.get("NNAC_VELA_PYTHON", sys.executable), metavar="PYTHON")
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="also write the JSON here")
    options = parser.parse_args()
    console = Console(width=max(150, Console().width))
    matrices = {name: matrix for name, matrix in wc.cases().items() if not options.rows or name in options.rows}
    if not matrices: raise SystemExit(f"no such row; there are {', '.join(wc.cases())}")
    try: theirs, source = mlw(options.vela, matrices), "measured"
    except (RuntimeError, OSError) as error:
        console.print(f"ethos-u-vela is not there ({error}); the mlw column shows published figures (5.2.0)",
                      style="yellow")
        theirs, source = {name: (bits, None) for name, bits in PUBLISHED.items()}, "published"

    codec.encode(matrices[next(iter(matrices))], "entropy")        # warm-up
    rows = []
    for name, matrix in matrices.items():
        row = measure(name, matrix, options.repeat)
        row["mlw_bits"] = round(theirs[name][0], 5) if name in theirs else None
        rows.append(row)

    table = Table(title=f"Bits per weight, 1024 x 1024, everything included; mlw {source}")
    for head in ("weights", "codec", "nnac", "mlw", "ratio", "entropy", "over", "live", "choose", "encode", "decode"):
        table.add_column(head, justify="left" if head in ("weights", "codec") else "right", no_wrap=True)
    for row in rows:
        over = f"{100 * (row['nnac_bits'] / row['entropy_bits'] - 1):.2f} %" if row["entropy_bits"] else ""
        theirs_bits = row["mlw_bits"]
        ratio = "" if not theirs_bits else f"{row['nnac_bits'] / theirs_bits:.3f}"
        table.add_row(row["name"], row["codec"].replace("block_bitmap", "blocks"), f"{row['nnac_bits']:.4f}",
                      "" if theirs_bits is None else f"{theirs_bits:.4f}",
                      ratio if not ratio or theirs_bits >= row["nnac_bits"] else f"[red]{ratio}[/red]",
                      f"{row['entropy_bits']:.4f}", over, f"{100 * row['live_words'] / row['words']:.0f} %",
                      *(f"{1.048576 / row[key]:.0f}" for key in ("choose_s", "encode_s", "decode_s")))
    table.caption = ("over: nnac above the entropy (zero-order, or of blocks where lower); live: words that are "
                     "multiplied;\n"
                     "choose (and encode), encode, decode: million weights a second, one thread")
    console.print(table)

    total = sum(matrix.size for matrix in matrices.values()) / 1e6
    coded_rows = [row for row in rows if "entropy" in row["codec"]] or rows
    coded = len(coded_rows) * 1.048576
    compared = [row for row in rows if row["mlw_bits"] is not None]
    kept = ("name", "nnac_bits", "mlw_bits", "entropy_bits", "codec", "live_words", "words", "steps")
    result = {
        "rows": [{key: row[key] for key in kept} for row in rows],
        "mlw_source": source,
        "at_or_below_mlw": [sum(row["nnac_bits"] <= row["mlw_bits"] for row in compared), len(compared)],
        "worst_over_entropy": round(max((r["nnac_bits"] / r["entropy_bits"] - 1 for r in rows if r["entropy_bits"]),
                                        default=0), 4),
        "encode_mweights_per_s": round(total / sum(row["encode_s"] for row in rows), 1),
        "decode_mweights_per_s": round(total / sum(row["decode_s"] for row in rows), 1),
        "choose_and_encode_mweights_per_s": round(total / sum(row["choose_s"] for row in rows), 1),
        "entropy_encode_mweights_per_s": round(coded / sum(row["encode_s"] for row in coded_rows), 1),
        "entropy_decode_mweights_per_s": round(coded / sum(row["decode_s"] for row in coded_rows), 1),
    }
    speeds = [speed for _, speed in theirs.values() if speed]
    if speeds: result["mlw_encode_mweights_per_s"] = round(len(speeds) / sum(1 / speed for speed in speeds), 1)
    line = json.dumps(result)
    if options.json: Path(options.json).write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
