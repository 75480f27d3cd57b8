"""Distillation: the module under a policy also learns from the float network it started from.

At every node of the RNN-T lattice three things can happen: the blank, the next label of the transcript, any other.  The
teacher's three probabilities against the student's: as good as the whole vocabulary, and cheap.
Source: Panchapagesan et al. 2020 (arXiv 2011.06110), from general knowledge of it; the weighting over nodes is our
choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

# of the rest, which is a difference: float32 knows no less
_SMALLEST = 1e-6


def collapsed(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """logits [B, T, U+1, V], targets [B, U], labels [B] -> log-probabilities [B, T, U+1, 3] of blank (id 0), next
    label, the rest.

    After its last label an utterance has no next one: log 0 there.
    """
    normaliser = logits.logsumexp(-1)
    wanted = torch.nn.functional.pad(targets, (0, 1))
    over = (torch.arange(logits.shape[2], device=logits.device) >= labels[:, None])[:, None]
    label = logits.gather(-1, wanted[:, None, :, None].expand(*logits.shape[:3], 1))[..., 0] - normaliser
    label = label.masked_fill(over, float("-inf"))
    blank = logits[..., 0] - normaliser
    rest = (1.0 - blank.exp() - label.exp()).clamp_min(_SMALLEST).log()
    return torch.stack([blank, label, rest], -1)


def divergence(student: Tensor, teacher: Tensor, targets: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
    """KL(teacher || student) of the collapsed distributions -> [B]: summed over frames, averaged over the U+1 label
    positions.

    student, teacher  [B, T, U+1, V] logits      targets [B, U]      frames, labels [B]
    """
    t, u = (torch.arange(n, device=student.device) for n in student.shape[1:3])
    inside = (t[:, None] < frames[:, None, None]) & (u <= labels[:, None, None])
    ours, theirs = collapsed(student, targets, labels), collapsed(teacher.detach(), targets, labels)
    known = inside[..., None] & theirs.isfinite()
    difference = theirs.masked_fill(~known, 0.0) - ours.masked_fill(~known, 0.0)
    return (theirs.exp() * difference).sum((1, 2, 3)) / (labels + 1)
