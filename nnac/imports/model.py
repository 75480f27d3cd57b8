"""A checkpoint of another toolkit as a model of nnac's: networks of its map, read like any model of a user's own."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from nnac.capture import PrepareError
from nnac.capture.transducer import CapturedTransducer, capture_transducer
from nnac.checked import counted
from nnac.decode.front_end import FrontEnd
from nnac.decode.tensors import LabelEnd
from nnac.errors import ABSURD
from nnac.files import read_text
from nnac.imports.files import ImportError_, tensors
from nnac.imports.maps import Map, Step
from nnac.imports.network import Chain, networks
from nnac.speech.features import KALDI, FeatureSpec, Normalisation
from nnac.speech.tokens import TokenError, Tokens
from nnac.train.families.transducer import own_names
from nnac.train.saved import SavedModel

STEPS = 6                      # of the encoder in the example that is read
MOST_FEATURES = 1 << 24        # numbers of that example


def captured(found: Map, weights: Mapping[str, Tensor], options: Mapping[str, float] | None = None,
             outside: tuple[str, ...] = ()) -> CapturedTransducer:
    """The graph of a checkpoint, with its weights.  ImportError_: what does not fit."""
    try:
        parts = networks(found, weights, options, outside)
        encoder = parts["encoder"]
        assert isinstance(encoder, Chain)
        pace = math.prod(int(v) for v in {**found.options, **(options or {})}.values())
        if STEPS * pace * encoder.takes > MOST_FEATURES:
            raise ImportError_(f"{found.title}: steps of {pace:,} frames of {encoder.takes:,} features are more than "
                               "any model takes")
        x, labels = torch.randn(2, STEPS * pace, encoder.takes), torch.zeros(2, 3, dtype=torch.long)
        made, _ = capture_transducer(parts, dict(encoder=((x,), {}), prediction=((labels,), {})), found.blank,
                                     found.start)
    except PrepareError as error:
        raise ImportError_(f"{found.title}: {'; '.join(p.what for p in error.problems[:4])}") from None
    except ABSURD as error:                                # shapes that no layer has, names that no module takes
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImportError_(f"{found.title}: these tensors make no model: {words}") from None
    return made


def imported(path: str | os.PathLike[str], found: Map, options: Mapping[str, float] | None = None,
             outside: tuple[str, ...] = (), tokens: Tokens | None = None,
             features: tuple[FeatureSpec, Normalisation] | None = None) -> SavedModel:
    """The model in a checkpoint.

    tokens    pieces, the blank left out: then the model hears      features  of a corpus; default: what the toolkit
    trains on, as its map says, with no normalisation; else log-mel as nnac makes them (`hears_otherwise`)
    """
    made = captured(found, tensors(path, found.inside), options, outside)
    graph = made.captured.graph
    weights = {f"{'.'.join(own_names(path))}.{name}": w.float() for (path, name), w in made.captured.weights.items()}
    end: FrontEnd | LabelEnd = LabelEnd(made.features, made.order[0], len(made.order))
    if tokens is not None:
        if before := [o for o in outside if o.split(".")[0] in _roots(found.encoder)]:
            raise ImportError_(f"the model begins behind `{before[0]}`, and hears what that makes, no audio: leave "
                               "--tokens out and give it arrays, or give `nnac.prepare_transducer` the whole encoder")
        bins = graph.inputs["features"]
        spec, norm = features or (_usual(found, bins), Normalisation(np.zeros(bins), np.ones(bins)))
        if spec.bins != bins or tokens.count != len(made.order):
            blank = f": the file has a line for the blank as well, its {made.order[0] + 1}th" * (
                tokens.count == len(made.order) - 1)
            raise ImportError_(f"the model hears {bins} features and chooses from {len(made.order)} labels; here are "
                               f"{spec.bins} features and {tokens.count} tokens, the blank among them{blank}")
        end = FrontEnd(spec, norm, tokens)
    return SavedModel(graph, weights, end, dict(imported=found.title))


def _roots(steps: Iterable[Step]) -> set[str]:
    """What the names of tensors begin with."""
    out: set[str] = set()
    for step in steps:
        if isinstance(step.value, str):
            out.add(step.value.split(".")[0])
        out |= _roots(step.more.get("steps", ())) | (_roots(step.value) if isinstance(step.value, tuple) else set())
    return out


def _usual(found: Map, bins: int) -> FeatureSpec:
    return FeatureSpec.kaldi(bins) if found.features == KALDI else FeatureSpec(bins=bins)


def hears_otherwise(found: Map) -> str | None:
    """What to say of a model that is to hear audio without a corpus' features: None where its toolkit's are known."""
    if found.features is not None:
        return None
    return (f"{found.title}: its own features are not known, and it hears nnac's log-mel without normalisation: give "
            "features of a corpus that it is trained on (--corpus), or `features` in a map of your own, or leave "
            "--tokens out and give it arrays")


def read_tokens(path: str | os.PathLike[str], blank: int) -> Tokens:
    """Pieces, one a line, in the toolkit's order: alone, with a score (a sentencepiece `.vocab`), or with their number
    (sherpa's and icefall's `tokens.txt`).  The blank's is left out.  ImportError_: what is wrong with them."""
    lines = [line.rstrip("\r") for line in read_text(path).split("\n") if line.rstrip("\r")]
    pieces: dict[int, str] = {}
    for i, line in enumerate(lines):
        piece, _, number = line.replace("\t", " ").rpartition(" ")
        own = counted(number) if piece else None
        scored = bool(piece) and own is None and _is_number(number)
        pieces[i if own is None else own] = line if own is None and not scored else piece
    ordered = [pieces[k] for k in sorted(pieces)]
    if sorted(pieces) != list(range(len(pieces))):
        raise ImportError_(f"{path}: the numbers of the pieces are not 0 to {len(pieces) - 1}")
    if not -len(ordered) <= blank < len(ordered):
        raise ImportError_(f"{path}: {len(ordered)} pieces, and the blank is to be number {blank}")
    ordered.pop(blank)
    try:
        return Tokens(ordered)
    except TokenError as error:
        raise ImportError_(f"{path}: {error}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
