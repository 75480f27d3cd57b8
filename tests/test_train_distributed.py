"""Under DistributedDataParallel: the same scales everywhere, and the step of one process with the joined batch."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.test_train_module import data, made


def loss_of(model, batch):
    """The sum over the utterances: so gradients of joined batches add up."""
    logits, _ = model(*batch)
    return logits.pow(2).mean((1, 2, 3)).sum()


def halves():
    """Two batches of two utterances, and both together."""
    module = made(1, calibrated=False)
    features, _, targets = data(module, 5, batch=4)
    lengths = torch.full((4,), features.shape[0])
    parts = [(features[:, r], lengths[r], targets[:, r]) for r in (slice(0, 2), slice(2, 4))]
    return parts, (features, lengths, targets)


def worker(rank, file, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    parts, _ = halves()
    module = made(1, calibrated=False)
    module.calibrate([parts[rank]])
    model = DistributedDataParallel(module)
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(3):
        loss = loss_of(model, parts[rank])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        losses.append(float(total))
    torch.save((module.state_dict(), losses), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_train_as_one_with_the_joined_batch(tmp_path):
    torch.multiprocessing.spawn(worker, (tmp_path / "rendezvous", tmp_path), nprocs=2)
    (first, losses), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[k], second[k]) for k in first)
    _, both = halves()
    single = made(1, calibrated=False)
    single.calibrate([both])
    scales = {k: v for k, v in single.state_dict().items() if k.endswith(".scale")}
    assert scales and all(torch.equal(first[k], v) for k, v in scales.items())
    optimiser = torch.optim.SGD(single.parameters(), 0.05)
    for expected in losses:
        loss = loss_of(single, both) / 2                 # DistributedDataParallel takes the mean over processes
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert float(2 * loss.detach()) == pytest.approx(expected, rel=1e-4)
    own = single.state_dict()
    for k in first:
        assert torch.allclose(own[k].double(), first[k].double(), atol=1e-5), k
