"""RNN-T loss in plain PyTorch: forward and backward variables in one sweep over anti-diagonals, the gradient in closed
form.

In:  logits [B, T, U+1, V] (or already gathered log-probabilities).   Out: -log P(targets | logits) per utterance.
Every step is x_n[u] = logaddexp(x_{n-1}[u] + blank[n, u], x_{n-1}[u-1] + label[n, u]) with n = t + u.  alpha reads the
weights of the node it leaves; beta, on the lattice turned by 180 degrees utterance by utterance, those of the node it
enters; so both are rows of one batch of 2B, and there are T + U - 1 steps, whatever T x U.  The lattice is float64:
occupancies are exponentials of sums near -500, where float32 keeps three digits.

Source: Graves 2012 (arXiv 1211.3711) for the recursion; the skewed sweep and FastEmit as one factor (arXiv 2010.11148)
are the usual rearrangements.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_NEVER = -1e30  # log 0 that survives additions without becoming nan


def _skew(x: Tensor) -> Tensor:
    """[B, T, W] -> [T+W-1, B, W] with out[n, b, u] = x[b, n-u, u], log 0 outside."""
    B, T, W = x.shape
    padded = x.new_full((B, T + W, W), _NEVER)
    padded[:, :T] = x
    # a row of W*(T+W) read with stride T+W-1 starts each column one later than the column before
    flat = padded.transpose(1, 2).reshape(B, W * (T + W))[:, : W * (T + W - 1)]
    return flat.view(B, W, T + W - 1).permute(2, 0, 1)


def _unskew(y: Tensor, T: int) -> Tensor:
    """[N, B, W] -> [B, T, W]: the inverse of `_skew`."""
    u = torch.arange(y.shape[2], device=y.device)
    t = torch.arange(T, device=y.device)
    return y.permute(1, 0, 2)[:, t[:, None] + u, u]


def occupancies(blank: Tensor, label: Tensor, frames: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the two arcs that leave each node -> (log P [B], P(blank arc) [B, T, U+1], P(label arc) [B,
    T, U+1]).

    blank, label  [B, T, U+1]; the last column of label is not read      frames [B] >= 1, labels [B] >= 0
    The probabilities are those of passing the arc, given the targets; zero outside an utterance.
    """
    B, T, W = blank.shape
    blank, label = blank.double(), label.double()
    t, u = torch.arange(T, device=blank.device), torch.arange(W, device=blank.device)
    inside = (t[:, None] < frames[:, None, None]) & (u <= labels[:, None, None])
    blank = blank.masked_fill(~inside, _NEVER)
    label = label.masked_fill(~(inside & (u < labels[:, None, None])), _NEVER)
    # turned by 180 degrees, every end node is (0, 0)
    rows = torch.arange(B, device=blank.device)[:, None, None]
    turn_t = (frames[:, None] - 1 - t).clamp_min(0)[:, :, None]
    turn_u = (labels[:, None] - u).clamp_min(0)[:, None, :]
    turned_blank = blank[rows, turn_t, turn_u].masked_fill(~inside, _NEVER)
    turned_label = label[rows, turn_t, turn_u].masked_fill(~inside, _NEVER)

    N = T + W - 1
    down = blank.new_full((N, 2 * B, W), _NEVER)
    right = blank.new_full((N, 2 * B, W), _NEVER)
    down[1:, :B] = _skew(blank)[:-1]
    right[1:, :B, 1:] = _skew(label)[:-1, :, :-1]
    down[:, B:] = _skew(turned_blank)
    right[:, B:] = _skew(turned_label)
    x = blank.new_full((N, 2 * B, W + 1), _NEVER)  # one column of log 0 on the left
    x[0, :B, 1] = 0.0
    x[0, B:, 1] = turned_blank[:, 0, 0]
    here, left = x[:, :, 1:].unbind(0), x[:, :, :-1].unbind(0)
    downs, rights = down.unbind(0), right.unbind(0)
    stay, come = torch.empty_like(downs[0]), torch.empty_like(downs[0])
    for n in range(1, N):
        torch.add(here[n - 1], downs[n], out=stay)
        torch.add(left[n - 1], rights[n], out=come)
        torch.logaddexp(stay, come, out=here[n])

    both = _unskew(x[:, :, 1:], T)
    alpha, turned_beta = both[:B], both[B:]
    beta = turned_beta[rows, turn_t, turn_u].masked_fill(~inside, _NEVER)
    log_p = beta[:, 0, 0]
    # a blank arc goes to beta[t+1, u], or from the last node to the end; a label arc to beta[t, u+1]
    after_blank = torch.full_like(beta, _NEVER)
    after_blank[:, :-1] = beta[:, 1:]
    after_blank[rows[:, 0, 0], frames - 1, labels] = 0.0
    after_label = torch.full_like(beta, _NEVER)
    after_label[:, :, :-1] = beta[:, :, 1:]
    start = alpha - log_p[:, None, None]
    return log_p, (start + blank + after_blank).exp(), (start + label + after_label).exp()


class _RnntLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int,
                fastemit: float) -> Tensor:
        normaliser = logits.logsumexp(-1)
        wanted = torch.full(logits.shape[:1] + logits.shape[2:3], blank, dtype=torch.long, device=logits.device)
        wanted[:, :-1] = targets
        index = wanted[:, None, :, None].expand(*logits.shape[:3], 1)
        log_p, through_blank, through_label = occupancies(
            logits[..., blank] - normaliser, logits.gather(-1, index)[..., 0] - normaliser, frames, labels
        )
        ctx.save_for_backward(logits, normaliser, index, through_blank.to(logits),
                              ((1.0 + fastemit) * through_label).to(logits))
        ctx.blank = blank
        return -log_p.to(logits)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        logits, normaliser, index, through_blank, through_label = ctx.saved_tensors
        grad = (logits - normaliser[..., None]).exp_()
        grad.mul_((through_blank + through_label)[..., None])
        grad[..., ctx.blank] -= through_blank
        grad.scatter_add_(-1, index, -through_label[..., None])
        return grad.mul_(g[:, None, None, None]), None, None, None, None, None


def check_lengths(B: int, T: int, W: int, V: int, targets: Tensor, frames: Tensor, labels: Tensor, blank: int) -> None:
    """ValueError where targets or lengths do not fit [B, T, W, V]: a wrong id would be read from another token's
    memory."""
    if targets.shape != (B, W - 1) or frames.shape != (B,) or labels.shape != (B,):
        raise ValueError(
            f"for logits [{B}, {T}, {W}, {V}]: targets must be [{B}, {W - 1}], lengths [{B}]; "
            f"got {list(targets.shape)}, {list(frames.shape)}, {list(labels.shape)}"
        )
    if B and not (int(frames.min()) >= 1 and int(frames.max()) <= T and int(labels.min()) >= 0
                  and int(labels.max()) <= W - 1):
        raise ValueError(
            f"lengths out of range: frames {int(frames.min())}-{int(frames.max())} of {T}, "
            f"labels {int(labels.min())}-{int(labels.max())} of {W - 1}"
        )
    within = torch.arange(W - 1, device=targets.device) < labels[:, None]
    if bool(((targets < 0) | (targets >= V) | (targets == blank))[within].any()):
        raise ValueError(f"targets must be ids below {V} other than the blank {blank}")


def rnnt_loss(
    logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int = 0, reduction: str = "mean",
              fastemit: float = 0.0
) -> Tensor:
    """-log P(targets) of an RNN-T.

    logits  [B, T, U+1, V] raw, float32 or float64      targets  [B, U] ids
    frames, labels  [B] lengths (T_b >= 1, U_b >= 0)
    reduction  "none" [B], "sum" or "mean" over utterances      fastemit  extra weight of label arcs in the gradient
    """
    if logits.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rnnt_loss takes float32 or float64 logits, not {logits.dtype}")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is none, sum or mean, not {reduction!r}")
    targets, frames, labels = targets.long(), frames.long(), labels.long()
    B, T, W, V = logits.shape
    check_lengths(B, T, W, V, targets, frames, labels, blank)
    padded = targets.masked_fill(torch.arange(targets.shape[1], device=targets.device) >= labels[:, None], blank)
    loss = _RnntLoss.apply(logits, padded, frames, labels, blank, fastemit)
    return loss if reduction == "none" else getattr(loss, reduction)()
