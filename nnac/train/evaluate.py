"""Transcripts and word error rate of a network on a split.  The network keeps the protocol of `nnac.decode.greedy`."""

from __future__ import annotations

from typing import Any

import torch

from ..decode.greedy import transcribe
from ..speech.corpus import Split
from ..speech.features import Normalisation
from ..speech.tokens import Tokens
from ..speech.wer import WordErrors, word_errors
from .batches import Examples, grouped


@torch.no_grad()
def transcripts(model: Any, split: Split, normalisation: Normalisation, tokens: Tokens, size: int = 20000) -> list[str]:
    """One text per utterance, in the split's order.  Leaves the model in the mode (training, evaluation) it was in."""
    examples, out = Examples(split, tokens, normalisation), [""] * len(split)
    like = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        for rows in grouped(examples.frames, size):
            batch = examples.batch(rows)
            if like is not None:
                batch = batch.to(like.device)
            for i, ids in zip(rows, transcribe(model, batch.features, batch.lengths), strict=True):
                out[i] = tokens.decode(ids)
    finally:
        if was_training:
            model.train()
    return out


def evaluate(model: Any, split: Split, normalisation: Normalisation, tokens: Tokens) -> tuple[WordErrors, list[str]]:
    """(word errors, transcripts) of greedy decoding."""
    hypotheses = transcripts(model, split, normalisation, tokens)
    return word_errors(split.texts, hypotheses), hypotheses
