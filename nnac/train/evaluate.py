"""Transcripts and word error rate of a network on a split.  The network keeps the protocol of
`nnac.decode.search.greedy`."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen

from nnac.decode.front_end import recognise
from nnac.decode.search import Search
from nnac.speech.corpus import Split
from nnac.speech.features import Normalisation
from nnac.speech.tokens import Tokens
from nnac.speech.wer import WordErrors, word_errors
from nnac.train.batches import Examples, grouped
from nnac.train.rnnt_loss import rnnt_loss

WORD_ERRORS = "dev WER {:.1f} %"


@frozen(eq=False)
class Heard:
    """A dev split and how it is heard: what trainings of recognisers are judged by on the way."""

    split: Split
    normalisation: Normalisation
    tokens: Tokens

    def word_error_rate(self, model: Any) -> float:
        """In per cent, of greedy decoding."""
        return evaluate(model, self.split, self.normalisation, self.tokens)[0].rate


@torch.no_grad()
def transcripts(model: Any, split: Split, normalisation: Normalisation, tokens: Tokens, batch: int = 96,
                search: Search | None = None) -> list[str]:
    """One text per utterance, in the split's order.  Leaves the model in the mode (training, evaluation) it was in."""
    like = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if like is None else like.device
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        return recognise(model, tokens.decode, [normalisation.apply(f) for f in split.features], batch,
                         lambda x: torch.from_numpy(x).to(device), search=search)
    finally:
        if was_training:
            model.train()


def evaluate(model: Any, split: Split, normalisation: Normalisation, tokens: Tokens,
             search: Search | None = None) -> tuple[WordErrors, list[str]]:
    """(word errors, transcripts); ``search`` None: of greedy decoding."""
    hypotheses = transcripts(model, split, normalisation, tokens, search=search)
    return word_errors(split.texts, hypotheses), hypotheses


@torch.no_grad()
def losses(model: torch.nn.Module, split: Split, normalisation: Normalisation, tokens: Tokens,
           frames: int = 4000) -> list[float]:
    """The RNN-T loss of each utterance in nats, in the split's order: sees differences that word errors do not.

    frames  of a batch, padding included
    """
    examples = Examples(split, tokens, normalisation)
    out = [0.0] * len(examples)
    was_training = model.training
    model.eval()
    try:
        for rows in grouped(examples.frames, frames):
            batch = examples.batch(rows).to(next(model.parameters()).device)
            logits, lengths = model(batch.features, batch.lengths, batch.tokens.T)
            each = rnnt_loss(logits.float(), batch.tokens, lengths, batch.token_counts, reduction="none")
            for row, value in zip(rows, each.tolist(), strict=True):
                out[int(row)] = value
    finally:
        model.train(was_training)
    return out
