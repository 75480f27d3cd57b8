"""Transcripts and word error rate of a network on a split.  The network keeps the protocol of `nnac.decode.greedy`."""

from __future__ import annotations

from typing import Any

import torch

from ..decode.front_end import recognise
from ..speech.corpus import Split
from ..speech.features import Normalisation
from ..speech.tokens import Tokens
from ..speech.wer import WordErrors, word_errors


@torch.no_grad()
def transcripts(model: Any, split: Split, normalisation: Normalisation, tokens: Tokens, batch: int = 96) -> list[str]:
    """One text per utterance, in the split's order.  Leaves the model in the mode (training, evaluation) it was in."""
    like = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if like is None else like.device
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        return recognise(model, tokens.decode, [normalisation.apply(f) for f in split.features], batch, lambda x: torch.from_numpy(x).to(device))
    finally:
        if was_training:
            model.train()


def evaluate(model: Any, split: Split, normalisation: Normalisation, tokens: Tokens) -> tuple[WordErrors, list[str]]:
    """(word errors, transcripts) of greedy decoding."""
    hypotheses = transcripts(model, split, normalisation, tokens)
    return word_errors(split.texts, hypotheses), hypotheses
