"""What nnac takes of others' models as they stand, and whether it says the truth of what it takes.

Published modules in small (`tests.published`) are prepared, calibrated, saved, and compared: training module against
emulator, and against onnxruntime on ONNX of integers, every integer.  PyTorch constructs (`tests.constructs`) are read
or refused: one is silently wrong that is taken and computes something else than the model in real numbers.

The last line is one JSON object.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from attrs import define

import nnac
from nnac import tensors
from nnac.capture import PrepareError
from nnac.executors import Subject
from nnac.train.prepare import relative, results
from tests import constructs, published

POLICY = """import "targets/edge.nnac"
policy mine {{
  model  {model}
  target edge
  layers ** {{ {weights}activations int8 percentile(99.99) }}
}}
"""
WEIGHTS = "weights int8 per_channel; "


@define
class Row:
    """What came of one module."""

    name: str
    said: str = ""
    compared: int = 0
    different: int = 0
    onnx_compared: int = 0
    onnx_different: int = 0
    placed: bool = False


def module(name: str, folder: Path) -> Row:
    """One published module, the whole way."""
    torch.manual_seed(0)
    how, make = published.MODULES[name]
    given, row, file = make(), Row(name), folder / "m.nnc"
    try:
        if how == "transducer":
            made: Any = nnac.prepare_transducer(**given, policy=POLICY.format(model="transducer", weights=WEIGHTS))
            example = given["example"]
            x, y = (example["encoder"][0], example["prediction"][0]) if isinstance(example, dict) else example
            steps = x.shape[made.made.features.roles.index("time")]
            made.calibrate([(x, torch.full((3,), steps), y)])
            made.save(file)
            arrays = dict(features=x.numpy())
        else:
            model, example = given
            graph = nnac.check(model, example).graph
            weights = WEIGHTS if graph is None or any(x.kernels for x in graph) else ""         # a norm has none
            made = nnac.prepare(model, POLICY.format(model="module", weights=weights), example)
            made.calibrate([example])
            made.save(file)
            arrays = {n: v.numpy() for n, v in arguments(made, example).items()}
    except PrepareError as error:
        row.said, row.placed = str(error).splitlines()[0], all(p.line for p in error.problems)
        return row
    subject = Subject.load(file)
    found = tensors.compare(subject, subject, arrays, ("torch", "emulator"))
    row.compared, row.different = found.compared, found.different
    found = tensors.compare(subject, subject, arrays, ("torch", "onnx"))
    row.onnx_compared, row.onnx_different = found.compared, found.different
    return row


def arguments(made: Any, example: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """The arrays that a saved module takes, by name."""
    from nnac.train.prepare import tensors as flat

    given = flat(made.signature, example, {})
    return {a.name: x for a, x in zip(made.captured.end.arguments, given, strict=True) if a is not None}


def silent() -> tuple[int, list[str]]:
    """(constructs tried, those that are taken and compute something else)."""
    wrong = []
    tried = {n: (m, e) for n, (m, e) in constructs.models().items()} | {n: (m, e) for n, (m, e, _) in
                                                                        constructs.refused().items()}
    for name, (make, example) in tried.items():
        torch.manual_seed(0)
        model = make()
        model.eval()
        try:
            made = nnac.prepare(model, POLICY.format(model="module", weights=WEIGHTS), example)
        except PrepareError:
            continue
        other = tuple(v + 0.1 * torch.randn_like(v) if v.is_floating_point() else v for v in example)
        with torch.no_grad(), made.eval().real_numbers():
            pairs = zip(results(made(*other)), results(model(*other)), strict=True)
            if any(relative(a.double(), b.double()) > (3e-2 if b.dtype == torch.bfloat16 else 1e-4) for a, b in pairs):
                wrong.append(name)
    return len(tried), wrong


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        rows = [module(name, Path(folder)) for name in published.MODULES]
    for r in rows:
        print(f"{r.name:44} " + (f"refused{'' if r.placed else ', without a line'}: {r.said[:100]}" if r.said else
                                 f"{r.compared:,} integers, {r.different} differ; onnx {r.onnx_compared:,}, "
                                 f"{r.onnx_different}"))
    count, wrong = silent()
    if wrong:
        print("silently wrong:", ", ".join(wrong))
    taken = [r for r in rows if not r.said]
    print(json.dumps(dict(modules=len(rows), accepted=len(taken), refused=len(rows) - len(taken),
                          refused_without_line=sum(bool(r.said) and not r.placed for r in rows),
                          silent_wrong=len(wrong), constructs=count, compared_integers=sum(r.compared for r in rows),
                          different_integers=sum(r.different for r in rows),
                          onnx_compared_integers=sum(r.onnx_compared for r in rows),
                          onnx_different_integers=sum(r.onnx_different for r in rows))))


if __name__ == "__main__":
    main()
