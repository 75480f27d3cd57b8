"""RNN-T loss against every alignment, against a plain recursion, and against finite differences."""

import itertools

import pytest
import torch

from nnac.train.joint_loss import joint_loss
from nnac.train.rnnt_loss import occupancies, rnnt_loss


def over_all_alignments(logits, y):
    """-log of the sum over every alignment, one by one.  logits [T, U+1, V], y [U]."""
    (T, W, _), U = logits.shape, len(y)
    assert W == U + 1
    p, total = logits.log_softmax(-1), []
    for emits in itertools.combinations(range(T + U - 1), U):  # the last symbol is always the blank of the last frame
        t = u = 0
        score = logits.new_zeros(())
        for n in range(T + U):
            if n in emits:
                score, u = score + p[t, u, y[u]], u + 1
            else:
                score, t = score + p[t, u, 0], t + 1
        total.append(score)
    return -torch.logsumexp(torch.stack(total), 0)


def plain_recursion(logits, y, frames, labels):
    out = []
    for b in range(len(logits)):
        p, a = logits[b].log_softmax(-1), {}
        for t in range(int(frames[b])):
            for u in range(int(labels[b]) + 1):
                ways = [a[t - 1, u] + p[t - 1, u, 0]] if t else []
                ways += [a[t, u - 1] + p[t, u - 1, y[b, u - 1]]] if u else []
                a[t, u] = torch.logsumexp(torch.stack(ways), 0) if ways else logits.new_zeros(())
        t, u = int(frames[b]) - 1, int(labels[b])
        out.append(-(a[t, u] + p[t, u, 0]))
    return torch.stack(out)


def case(B, T, U, V, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, U + 1, V, dtype=torch.float64, generator=g, requires_grad=True)
    return logits, torch.randint(1, V, (B, U), generator=g)


@pytest.mark.parametrize("T, U, V", [(1, 0, 3), (1, 1, 3), (1, 4, 4), (5, 0, 3), (4, 3, 5), (6, 4, 7), (5, 5, 3)])
def test_loss_and_gradient_are_those_of_all_alignments(T, U, V):
    logits, y = case(1, T, U, V)
    loss = rnnt_loss(logits, y, torch.tensor([T]), torch.tensor([U]), reduction="sum")
    expected = over_all_alignments(logits[0], y[0])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(x, logits)[0] for x in (loss, expected)), rtol=1e-10, atol=1e-12)


def test_a_single_node_is_its_blank():
    logits, y = case(1, 1, 0, 5)
    assert rnnt_loss(logits, y, torch.tensor([1]), torch.tensor([0])).item() == pytest.approx(
        -logits[0, 0, 0].log_softmax(-1)[0].item()
    )


@pytest.mark.parametrize("seed", range(5))
def test_ragged_batches_agree_with_the_plain_recursion(seed):
    r = torch.Generator().manual_seed(seed)
    B, T, U, V = 4, 7, 5, 6
    logits, y = case(B, T, U, V, seed)
    frames, labels = torch.randint(1, T + 1, (B,), generator=r), torch.randint(0, U + 1, (B,), generator=r)
    loss, expected = rnnt_loss(logits, y, frames, labels, reduction="none"), plain_recursion(logits, y, frames, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(B, dtype=torch.float64, generator=r)
    torch.testing.assert_close(
        *(torch.autograd.grad((x * weights).sum(), logits)[0] for x in (loss, expected)), rtol=1e-10, atol=1e-12
    )


def test_gradient_agrees_with_finite_differences():
    logits, y = case(3, 5, 3, 4)
    frames, labels = torch.tensor([5, 2, 4]), torch.tensor([3, 1, 0])
    assert torch.autograd.gradcheck(lambda z: rnnt_loss(z, y, frames, labels, reduction="none"), (logits,))


def test_padding_changes_nothing():
    logits, y = case(2, 6, 4, 5)
    frames, labels = torch.tensor([4, 3]), torch.tensor([2, 1])
    short = rnnt_loss(logits[:, :4, :3].contiguous(), y[:, :2], frames, labels, reduction="none")
    torch.testing.assert_close(rnnt_loss(logits, y, frames, labels, reduction="none"), short)


def test_padding_may_hold_any_id():
    logits, y = case(2, 6, 4, 5)
    frames, labels = torch.tensor([6, 5]), torch.tensor([4, 2])
    wild = y.clone()
    wild[1, 2:] = 9999
    torch.testing.assert_close(rnnt_loss(logits, wild, frames, labels), rnnt_loss(logits, y, frames, labels))


def test_each_frame_is_left_once_and_each_label_passed_once():
    logits, _y = case(2, 6, 3, 5)
    p = logits.detach().log_softmax(-1)
    frames, labels = torch.tensor([6, 4]), torch.tensor([3, 2])
    _, blank, label = occupancies(p[..., 0], p[..., 1], frames, labels)
    for b in range(2):
        assert torch.allclose(blank[b].sum(1)[: frames[b]], torch.ones(int(frames[b]), dtype=torch.float64))
        assert torch.allclose(label[b].sum(0)[: labels[b]], torch.ones(int(labels[b]), dtype=torch.float64))
        assert blank[b, frames[b] :].sum() == 0 and label[b, :, labels[b] :].sum() == 0


def test_float32_keeps_its_digits_on_a_long_utterance():
    logits, y = case(2, 150, 40, 32)
    frames, labels = torch.tensor([150, 120]), torch.tensor([40, 33])
    narrow = logits.detach().float().requires_grad_()
    wide, small = (rnnt_loss(x, y, frames, labels, reduction="sum") for x in (logits, narrow))
    assert small.item() == pytest.approx(wide.item(), rel=1e-6)
    (gw,), (gn,) = torch.autograd.grad(wide, logits), torch.autograd.grad(small, narrow)
    assert (gw - gn).abs().max() < 2e-6


def test_fastemit_strengthens_label_arcs_only():
    logits, y = case(1, 5, 3, 4)
    lengths = torch.tensor([5]), torch.tensor([3])
    plain, fast = (torch.autograd.grad(rnnt_loss(logits, y, *lengths, fastemit=f), logits)[0] for f in (0.0, 0.5))
    p = logits.detach().log_softmax(-1)
    wanted = torch.cat([y, torch.zeros(1, 1, dtype=torch.long)], 1)[:, None, :, None].expand(1, 5, 4, 1)
    _, _, label = occupancies(p[..., 0], p.gather(-1, wanted)[..., 0], *lengths)
    expected = 0.5 * (p.exp() * label[..., None]).scatter_add(-1, wanted, -label[..., None])
    torch.testing.assert_close(fast - plain, expected)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(targets=torch.tensor([[1, 9]])), "ids below 4"),
        (dict(targets=torch.tensor([[1, 0]])), "other than the blank"),
        (dict(frames=torch.tensor([9])), "out of range"),
        (dict(frames=torch.tensor([0])), "out of range"),
        (dict(labels=torch.tensor([3])), "out of range"),
        (dict(targets=torch.tensor([[1]])), "must be"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_read_from_elsewhere(change, words):
    arguments = dict(targets=torch.tensor([[1, 2]]), frames=torch.tensor([3]), labels=torch.tensor([2])) | change
    with pytest.raises(ValueError, match=words):
        rnnt_loss(torch.zeros(1, 3, 3, 4), **arguments)


# ---- the joint network and the loss in one


def joint_case(dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    B, T, U, J, V = 4, 7, 5, 6, 8
    tensors = [torch.randn(s, dtype=dtype, generator=g).requires_grad_()
               for s in ((B, T, J), (B, U + 1, J), (V, J), (V,))]
    y = torch.randint(1, V, (B, U), generator=g)
    return tensors, (y, torch.tensor([7, 1, 4, 6]), torch.tensor([5, 0, 2, 5]))


def plain_joint_loss(frames, predictions, weight, bias, y, t, u):
    return rnnt_loss(torch.tanh(frames[:, :, None] + predictions[:, None]) @ weight.T + bias, y, t, u, reduction="none")


def test_the_joint_loss_is_the_loss_of_the_joint():
    tensors, rest = joint_case()
    fused, plain = joint_loss(*tensors, *rest, torch.float64), plain_joint_loss(*tensors, *rest)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((x * weights).sum(), tensors) for x in (fused, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # occupancies are kept in float32


def test_the_joint_loss_in_bfloat16_points_the_same_way():
    tensors, rest = joint_case(torch.float32, seed=1)
    narrow, plain = joint_loss(*tensors, *rest, torch.bfloat16), plain_joint_loss(*tensors, *rest)
    torch.testing.assert_close(narrow, plain, rtol=0.02, atol=0.05)
    for a, b in zip(*(torch.autograd.grad(x.sum(), tensors) for x in (narrow, plain)), strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.999
