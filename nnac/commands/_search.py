"""Options of every command that searches: which search, how wide, with which language models."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nnac.errors import UserError

if TYPE_CHECKING:
    from nnac.decode.fusion import Fusion
    from nnac.decode.search import Search
    from nnac.speech.tokens import Tokens


class SearchOptionError(UserError):
    """Options that contradict each other; one line."""


def real(low: float, high: float) -> Callable[[str], float]:
    """An argument's type: a real number from ``low`` to ``high``."""
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"takes a number from {low:g} to {high:g}, not {text!r}")
        return value
    return read


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """--search and its settings; `search_of` makes a search of them."""
    from nnac.cli import source, whole

    def nats(low: float, high: float, metavar: str = "NATS") -> dict[str, Any]:
        return dict(type=real(low, high), metavar=metavar)

    put = parser.add_argument_group("search").add_argument
    file: dict[str, Any] = dict(type=source, metavar="FILE.arpa")
    put("--search", choices=("beam", "greedy"), help="how outputs become words (greedy)")
    put("--max-symbols", type=whole(1), metavar="N", help="labels that one frame may emit (6)")
    put("--beam", type=whole(1), metavar="K", help="hypotheses kept (8)")
    put("--delta", **nats(0, 1e6), help="how far a hypothesis may lie behind the best (5)")
    put("--nbest", type=whole(1), metavar="N", help="show the N best hypotheses (1)")
    put("--blank-penalty", **nats(-16, 16), help="taken from the blank at every frame (0)")
    put("--length-bonus", **nats(-16, 16), help="given for every label (0)")
    put("--lm", **file, help="language model of the target's domain, on the model's own tokens")
    put("--lm-scale", **nats(0, 4, "W"), help="its weight")
    put("--source-lm", **file, help="language model of the training text, taken off: density ratio")
    put("--source-scale", **nats(0, 4, "W"), help="its weight, taken off")
    put("--ilm-scale", **nats(0, 4, "W"), help="weight of the model's internal language model, taken off")


_BEAM_ONLY = ("beam", "delta", "nbest", "blank_penalty", "length_bonus", "lm", "lm_scale", "source_lm", "source_scale",
              "ilm_scale")


def search_of(args: argparse.Namespace, tokens: Tokens) -> Search:
    """The search that the options ask for.  SearchOptionError, LanguageModelError, FusionError: one line."""
    from nnac.decode.search import MAX_SYMBOLS, search

    cap = args.max_symbols or MAX_SYMBOLS
    if args.search != "beam":
        if idle := [o for o in _BEAM_ONLY if getattr(args, o) is not None]:
            raise SearchOptionError(f"--{idle[0].replace('_', '-')} is an option of --search beam")
        made: Any = search("greedy")
        return made(cap)
    for model, scale in (("lm", "lm_scale"), ("source_lm", "source_scale")):
        if (getattr(args, model) is None) != (getattr(args, scale) is None):
            dashed = [f"--{o.replace('_', '-')}" for o in (model, scale)]
            raise SearchOptionError(f"{dashed[0]} and {dashed[1]} go together: weights are found by `nnac tune-fusion`")
    beam: Any = search("beam")
    given = {o: getattr(args, o) for o in ("beam", "delta", "blank_penalty", "nbest") if getattr(args, o) is not None}
    made = beam(max_symbols=cap, fusion=fusion_of(args, tokens), **given)
    if made.nbest > made.beam:
        raise SearchOptionError(f"--nbest {made.nbest} of a beam of {made.beam}: there are no more than the beam keeps")
    return made


def fusion_of(args: argparse.Namespace, tokens: Tokens) -> Fusion:
    """The language models that the options name, with their signed weights."""
    from nnac.decode.fusion import Fusion
    from nnac.decode.ngram import automaton, read_arpa

    named = [(args.lm, args.lm_scale), (args.source_lm, None if args.source_scale is None else -args.source_scale)]
    used = [(path, float(weight)) for path, weight in named if path is not None]
    models = tuple(automaton(read_arpa(path, tokens)) for path, _ in used)
    return Fusion(models, tuple(w for _, w in used), -(args.ilm_scale or 0.0), args.length_bonus or 0.0,
                  names=tuple(path for path, _ in used))
