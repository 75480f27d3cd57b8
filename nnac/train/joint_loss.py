"""The additive tanh joint network and the RNN-T loss in one operator: no [B, T, U+1, V] and no padding.

The joint network of an RNN-T has T x U times the work of its inputs, and is what a training step spends most on.  Here
the nodes of all utterances lie end to end ([nodes, joint]), only real nodes are computed, and the gradient follows in
closed form from the occupancies of the lattice.  In bfloat16, where the processor has it, about a third of the time of
the plain spelling `rnnt_loss(output(tanh(frames + predictions)))`, which stays as its oracle in the tests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnac.train.rnnt_loss import check_lengths, occupancies


class _JointLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        predictions: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        frame_counts: list[int],
        label_counts: list[int],
        dtype: torch.dtype,
    ) -> Tensor:
        B, T, J = frames.shape
        W = predictions.shape[1]
        sizes = [t * (u + 1) for t, u in zip(frame_counts, label_counts, strict=True)]
        hidden = frames.new_empty(sum(sizes), J, dtype=dtype)
        narrow_frames, narrow_predictions = frames.to(dtype), predictions.to(dtype)
        parts = hidden.split(sizes)
        for b, (part, t, u) in enumerate(zip(parts, frame_counts, label_counts, strict=True)):
            torch.add(narrow_frames[b, :t, None], narrow_predictions[b, : u + 1], out=part.view(t, u + 1, J))
        hidden.tanh_()
        logits = torch.nn.functional.linear(hidden, weight.to(dtype), bias.to(dtype)).to(frames)
        normaliser = logits.logsumexp(-1)
        rows = torch.cat(
            [
                torch.cat([y[:u], y.new_zeros(1)]).expand(t, u + 1).reshape(-1)
                for y, t, u in zip(targets, frame_counts, label_counts, strict=True)
            ]
        )[:, None]
        blank = logits.new_zeros(B, T, W)
        label = logits.new_zeros(B, T, W)
        node_blank, node_label = logits[:, 0] - normaliser, logits.gather(1, rows)[:, 0] - normaliser
        for b, (x, y) in enumerate(zip(node_blank.split(sizes), node_label.split(sizes), strict=True)):
            t, u = frame_counts[b], label_counts[b]
            blank[b, :t, : u + 1], label[b, :t, : u + 1] = x.view(t, u + 1), y.view(t, u + 1)
        log_p, through_blank, through_label = occupancies(
            blank, label, torch.tensor(frame_counts, device=frames.device),
                                                          torch.tensor(label_counts, device=frames.device)
        )

        def packed(x: Tensor) -> Tensor:
            return torch.cat(
                [x[b, :t, : u + 1].reshape(-1) for b, (t, u) in enumerate(zip(frame_counts, label_counts, strict=True))]
            ).to(frames)

        ctx.save_for_backward(hidden, logits, normaliser, rows, packed(through_blank), packed(through_label), weight)
        ctx.counts, ctx.shape = (frame_counts, label_counts, sizes), (B, T, W, J)
        return -log_p.to(frames)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        hidden, logits, normaliser, rows, through_blank, through_label, weight = ctx.saved_tensors
        frame_counts, label_counts, sizes = ctx.counts
        B, T, W, J = ctx.shape
        grad = (logits - normaliser[:, None]).exp_()
        grad.mul_((through_blank + through_label)[:, None])
        grad[:, 0] -= through_blank
        grad.scatter_add_(1, rows, -through_label[:, None])
        grad.mul_(torch.repeat_interleave(g, torch.tensor(sizes, device=g.device))[:, None])
        narrow = grad.to(hidden.dtype)
        d_weight, d_bias = (narrow.T @ hidden).to(weight), grad.sum(0)
        d_hidden = torch.ops.aten.tanh_backward(narrow @ weight.to(hidden.dtype), hidden)
        d_frames, d_predictions = weight.new_zeros(B, T, J), weight.new_zeros(B, W, J)
        for b, (part, t, u) in enumerate(zip(d_hidden.split(sizes), frame_counts, label_counts, strict=True)):
            cube = part.view(t, u + 1, J)
            torch.sum(cube, 1, dtype=weight.dtype, out=d_frames[b, :t])
            torch.sum(cube, 0, dtype=weight.dtype, out=d_predictions[b, : u + 1])
        return d_frames, d_predictions, d_weight, d_bias, None, None, None, None


def joint_loss(
    frames: Tensor,
    predictions: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    frame_counts: Tensor,
    label_counts: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``rnnt_loss(linear(tanh(frames[:, :, None] + predictions[:, None]), weight, bias), targets, …,
    reduction="none")``.

    frames [B, T, J], predictions [B, U+1, J], weight [V, J], bias [V]: float32 or float64     targets [B, U]
    returns [B]
    dtype  of the node arrays and their products; sums, softmax and lattice stay wide.  Blank is 0.
    """
    frame_counts, label_counts, targets = frame_counts.long(), label_counts.long(), targets.long()
    check_lengths(frames.shape[0], frames.shape[1], predictions.shape[1], weight.shape[0], targets, frame_counts,
                  label_counts, 0)
    return _JointLoss.apply(frames, predictions, weight, bias, targets, frame_counts.tolist(), label_counts.tolist(),
                            dtype)
