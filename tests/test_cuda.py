"""On a GPU: the same integers as on a processor, bit for bit, for every policy of the papers; gradients; a step's
time."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import nnac
from nnac.language.check import check_file
from nnac.lower import lower_plan
from nnac.train.families.rnnt import Transducer
from nnac.train.schedule import Compression
from tests.test_train_module import data

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
SHAPE = "cells=48, embedding=8, prediction_cells=32, joint=40, vocabulary=29"
PAPERS = [(str(f), r.plan.name.partition("[")[0]) for f in sorted(Path("specs/papers").glob("*.nnac"))
          for r in check_file(f).resolutions[:1] if r.plan.model.builder == "rnnt"]


def module_of(file: str, name: str) -> Transducer:
    size = next(r.plan.model.arguments["size"] for r in check_file(file).resolutions if r.plan.name.startswith(name))
    text = (f'import "{file}"\n'
            f'policy small extends {name} {{ model rnnt(size="{size}", {SHAPE}); budget {{ bits_per_weight <= 32 }} }}')
    plan = nnac.loads(text, "small").plan
    torch.manual_seed(0)
    module = Transducer(lower_plan(plan), None, plan)
    features, lengths, targets = data(module, 3)
    module.calibrate([(features, lengths, targets)])
    return module


def seen(module: Transducer, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    with torch.no_grad(), module.watching(lambda name, v: out.__setitem__(name, v.detach().cpu().clone())):
        module(*inputs)
    return out


@pytest.mark.parametrize("file, name", PAPERS, ids=lambda x: Path(x).stem)
def test_the_integers_of_a_gpu_are_those_of_a_processor(file, name):
    module = module_of(file, name).eval()
    features, lengths, targets = data(module, 3)
    here = seen(module, features, lengths, targets)
    there = seen(copy.deepcopy(module).to("cuda"), features.cuda(), lengths.cuda(), targets.cuda())
    assert here.keys() == there.keys() and len(here) >= 8
    assert {n for n in here if not torch.equal(here[n].double(), there[n].double())} == set()


@pytest.mark.parametrize("file, name", PAPERS[:3], ids=lambda x: Path(x).stem)
def test_training_steps_on_a_gpu_go_where_they_go_on_a_processor(file, name):
    grads = []
    for device in ("cpu", "cuda"):
        module = module_of(file, name).to(device).train()
        compression = Compression(module, 40, 10)
        features, lengths, targets = (x.to(device) for x in data(module, 3))
        compression.on_step(1)
        logits, n = module(features, lengths, targets)
        loss = module.loss(logits, n, targets, torch.full_like(n, len(targets))).sum() + compression.regulariser()
        loss.backward()
        grads.append({k: p.grad.detach().cpu() for k, p in module.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name_, g in grads[0].items():
        assert (g - grads[1][name_]).norm() <= 1e-3 * g.norm() + 1e-6, name_


@pytest.mark.parametrize("file, name", PAPERS, ids=lambda x: Path(x).stem)
def test_bound_on_a_gpu_is_bound_on_a_processor(file, name):
    module = module_of(file, name).eval()
    a, b = module.bind(), copy.deepcopy(module).to("cuda").bind()
    for m, n in zip(a.nodes, b.nodes, strict=True):
        assert all((m.constants[k] == n.constants[k]).all() for k in m.constants)


def test_a_module_that_was_heard_on_the_processor_is_heard_on_a_gpu():
    """Constants are kept from call to call, but not from device to device."""
    file, name = next((f, n) for f, n in PAPERS if n == "int4_lstm")
    module = module_of(file, name).eval()
    features, lengths, targets = data(module, 3)
    here = seen(module, features, lengths, targets)
    there = seen(module.to("cuda"), features.cuda(), lengths.cuda(), targets.cuda())
    assert {n for n in here if not torch.equal(here[n].double(), there[n].double())} == set()
