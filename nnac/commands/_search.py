"""Options of every command that searches: which search, how wide, with which language models."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from nnac.errors import UserError
from nnac.files import read

if TYPE_CHECKING:
    from nnac.decode.front_end import FrontEnd
    from nnac.decode.fusion import Fusion, LanguageModel
    from nnac.decode.search import Search
    from nnac.executors import Subject
    from nnac.hybrid.scores import Hmm
    from nnac.speech.tokens import Tokens
    from nnac.sweep import Way
    from nnac.train.policy import Trained


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


def within(setting: str) -> Callable[[str], int]:
    """An argument's type: a whole number that a policy's `decode` block takes as ``setting``."""
    from nnac.cli import whole
    from nnac.language.decoding import LIMITS

    low, high, _ = LIMITS[setting]
    return whole(low, high)


_ACOUSTIC, _PRIOR = 0.5, 0.8   # as `nnac.decode.search.graph` and `nnac.hybrid.scores` have them, said without them


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """--search and its settings; `search_of` makes a search of them."""
    from nnac.cli import source, whole

    def nats(low: float, high: float, metavar: str = "NATS") -> dict[str, Any]:
        return dict(type=real(low, high), metavar=metavar)

    put = parser.add_argument_group("search").add_argument
    file: dict[str, Any] = dict(type=source, metavar="FILE")
    put("--search", choices=("beam", "graph", "greedy"),
        help="how outputs become words (greedy; of a hybrid: its graph)")
    put("--graph", **file, help="the decoding graph of a hybrid: what `nnac graph` wrote")
    put("--acoustic-scale", **nats(1e-3, 16, "W"), help="weight of a hybrid's likelihoods beside its graph's costs "
        f"({_ACOUSTIC:g})")
    put("--prior-scale", **nats(0, 4, "W"), help=f"how much of the states' priors is taken off them ({_PRIOR:g})")
    put("--max-symbols", type=within("max_symbols"), metavar="N", help="labels that one frame may emit (6)")
    put("--beam", type=whole(1), metavar="K", help="hypotheses kept (8; on a graph 3000)")
    put("--delta", **nats(0, 1e6), help="how far a hypothesis may lie behind the best (5; on a graph 12)")
    put("--nbest", type=within("beam"), metavar="N", help="show the N best hypotheses (1)")
    put("--blank-penalty", **nats(-16, 16), help="taken from the blank at every frame (0)")
    put("--length-bonus", **nats(-16, 16), help="given for every label (0)")
    put("--lm", **file, help="language model of the target's domain, on the model's own tokens: ARPA, or what "
        "`nnac train` wrote; without it, the entry `lm` of the program")
    put("--lm-scale", **nats(0, 4, "W"), help="its weight")
    put("--source-lm", **file, help="language model of the training text, taken off: density ratio")
    put("--source-scale", **nats(0, 4, "W"), help="its weight, taken off")
    put("--ilm-scale", **nats(0, 4, "W"), help="weight of the model's internal language model, taken off")


_GRAPH_ONLY = ("graph", "acoustic_scale", "prior_scale")
_ON_GRAPHS = ("beam", "delta", "nbest")                    # of beam search, but of graphs as well
_BEAM_ONLY = ("beam", "delta", "nbest", "blank_penalty", "length_bonus", "lm", "lm_scale", "source_lm", "source_scale",
              "ilm_scale")
_FILES = ("lm", "source_lm")
OPTIONS = ("search", "max_symbols", *_GRAPH_ONLY, *_BEAM_ONLY)


def languages_of(args: argparse.Namespace, tokens: Tokens) -> dict[str, Trained]:
    """The neural language models among --lm and --source-lm, by their names beside a recogniser.  CompanionError: other
    tokens."""
    from nnac.checkpoint import is_checkpoint
    from nnac.companions import language

    given = {name: path for name in _FILES if (path := getattr(args, name)) is not None}
    return {name: language(path, tokens) for name, path in given.items() if is_checkpoint(path)}


def searched(args: argparse.Namespace, subject: Subject) -> tuple[Subject, Search]:
    """What is searched, with its neural language models beside it, and how.

    SearchOptionError: a program that was compiled without the language model that it is given, or with another.
    """
    from attrs import evolve

    from nnac.companions import of_policy

    if subject.front.hmm is not None:
        return subject, graph_search(args, subject.front.hmm, subject.called)
    _no_graph(args, _GRAPH_ONLY, subject.called)
    tokens, compiled = subject.front.tokens, subject.compiled
    languages = languages_of(args, tokens)
    inside = {} if compiled is None else compiled.metadata.get("languages", {})
    if compiled is not None:
        for name, language in languages.items():
            option = _dashed(name)
            if name not in inside:
                raise SearchOptionError(f"{subject.called}: compiled without {option}: a neural language model is "
                                        "part of the program that asks it")
            if inside[name] != dict(plan=language.plan.digest, training=language.training):
                raise SearchOptionError(f"{subject.called}: compiled with another {option}: compile it again")
    if subject.trained is not None and args.search is None:    # the policy's own block is in force
        languages |= of_policy(subject.trained, [name for name in _FILES if getattr(args, name) is not None])
    there = languages if subject.trained is not None else inside
    plan: Any = subject.trained.plan.to_json() if subject.trained is not None else getattr(compiled, "plan", {})
    return evolve(subject, languages=languages), search_of(_with_policy(args, plan.get("decode")), tokens, there)


def _no_graph(args: argparse.Namespace, options: Sequence[str], called: str) -> None:
    """SearchOptionError if one of these options, or the search itself, is a hybrid's."""
    idle = [_dashed(o) for o in options if getattr(args, o) is not None]
    if idle or args.search == "graph":
        raise SearchOptionError(f"{idle[0] if idle else '--search graph'} is for hybrids: {called} is a transducer, "
                                "which writes its words itself")


def _dashed(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def way_of(args: argparse.Namespace, front: FrontEnd, called: str) -> Way | None:
    """How a comparison hears a model of this front end, ``called`` so; None: in the usual way.  One command line may be
    for recognisers of both kinds: with --graph and without --search, what both kinds of search know is the hybrids'.

    SearchOptionError, LanguageModelError, FusionError: one line.
    """
    from nnac.decode.search.beam import Beam
    from nnac.sweep import Way

    if front.hmm is not None:
        mine: tuple[str, ...] = (*_GRAPH_ONLY[1:], *_ON_GRAPHS)

        def of(front: FrontEnd) -> Search:
            assert front.hmm is not None
            return graph_search(args, front.hmm, called)
    else:
        _no_graph(args, () if args.graph else _GRAPH_ONLY, called)
        beside = _ON_GRAPHS if args.graph and args.search is None else ()
        mine = ("search", "max_symbols", *(o for o in _BEAM_ONLY if o not in beside))
        own = argparse.Namespace(**vars(args) | dict.fromkeys(beside))

        def of(front: FrontEnd) -> Search:
            if neural := languages_of(own, front.tokens):
                raise SearchOptionError(f"{getattr(own, next(iter(neural)))}: a neural language model is compiled into "
                                        "every program: that is what `[search]` in an experiments file does; "
                                        f"{_dashed(next(iter(neural)))} of `nnac sweep` takes ARPA")
            return search_of(own, front.tokens)

    made = of(front)               # a mistake is said before hours of work
    given = {o: v for o in mine if (v := getattr(args, o)) is not None}
    if not given:
        return None
    contents = [[o, sha256(read(v)).hexdigest() if o in _FILES else v] for o, v in given.items()]
    shown = " ".join(f"{_dashed(o)} {v:g}" if isinstance(v, float) else f"{_dashed(o)} {v}" for o, v in given.items())
    return Way(of, shown, made.beam if isinstance(made, Beam) else None, contents)


def graph_search(args: argparse.Namespace, hmm: Hmm, called: str) -> Search:
    """The search of a hybrid, ``called`` so.  SearchOptionError: no graph, or options of other searches; GraphError:
    of other states."""
    from nnac.decode.search import search
    from nnac.hybrid.graph import load

    made = search("graph")
    others = [o for o in _BEAM_ONLY if o not in _ON_GRAPHS and getattr(args, o) is not None]
    if args.search not in (None, "graph") or others or args.max_symbols:
        option = f"--search {args.search}" if args.search not in (None, "graph") else (
            _dashed(others[0]) if others else "--max-symbols")
        raise SearchOptionError(f"{option} is for transducers: {called} is a hybrid, whose words are found on "
                                "a graph (--graph FILE)")
    if args.graph is None:
        raise SearchOptionError(f"{called}: a hybrid's words are found on a decoding graph: give --graph FILE, "
                                "which `nnac graph` makes of its states and an n-gram")
    if args.delta == 0:
        raise SearchOptionError("--delta 0: on a graph no path would be left")
    graph = load(args.graph)
    graph.check(hmm.inventory, args.graph)
    given = dict(beam=args.delta, active=args.beam, nbest=args.nbest, acoustic=args.acoustic_scale,
                 prior=args.prior_scale)
    return made(graph, hmm, **{k: v for k, v in given.items() if v is not None})      # type: ignore[call-arg]


def _with_policy(args: argparse.Namespace, decode: Mapping[str, Any] | None) -> argparse.Namespace:
    """The options, with what the policy's `decode` block says where the command line says nothing.  --search on the
    command line sets the block aside as a whole."""
    if args.search is not None or decode is None:
        return args
    said = dict(search=decode["search"], max_symbols=decode["max_symbols"])
    if decode["search"] == "beam":
        said |= {k: decode[k] for k in ("beam", "delta", "blank_penalty", "length_bonus")}
        if decode["fusion"] != "none":
            said["lm_scale"] = decode["weight"]
        if decode["fusion"] in ("density_ratio", "internal"):
            said["source_scale" if decode["fusion"] == "density_ratio" else "ilm_scale"] = decode["less"]
    return argparse.Namespace(**{k: said.get(k) if v is None else v for k, v in vars(args).items()})


def search_of(args: argparse.Namespace, tokens: Tokens, entries: Collection[str] = ()) -> Search:
    """The search that the options ask for; ``entries``: language models that are there already, beside the recogniser.

    SearchOptionError, LanguageModelError, FusionError: one line.
    """
    from nnac.decode.search import MAX_SYMBOLS, search
    from nnac.language.decoding import LIMITS

    cap = args.max_symbols or MAX_SYMBOLS
    if args.search != "beam":
        if idle := [o for o in _BEAM_ONLY if getattr(args, o) is not None]:
            raise SearchOptionError(f"{_dashed(idle[0])} is an option of --search beam")
        made: Any = search("greedy")
        return made(cap)
    if args.beam is not None and args.beam > (most := LIMITS["beam"][1]):
        raise SearchOptionError(f"--beam {args.beam:,}: a search keeps {most:,} hypotheses at most")
    beam: Any = search("beam")
    given = {o: getattr(args, o) for o in ("beam", "delta", "blank_penalty", "nbest") if getattr(args, o) is not None}
    made = beam(max_symbols=cap, fusion=fusion_of(args, tokens, entries), **given)
    if made.nbest > made.beam:
        raise SearchOptionError(f"--nbest {made.nbest} of a beam of {made.beam}: there are no more than the beam keeps")
    return made


def fusion_of(args: argparse.Namespace, tokens: Tokens, entries: Collection[str]) -> Fusion:
    """The language models that the options name, with their signed weights."""
    from nnac.decode.fusion import Fusion
    from nnac.decode.ngram import automaton, read_arpa

    models: list[LanguageModel | str] = []
    weights = []
    for name, option, sign in (("lm", "lm_scale", 1.0), ("source_lm", "source_scale", -1.0)):
        path, weight = getattr(args, name), getattr(args, option)
        if weight is None and path is None:
            continue
        if weight is None or (path is None and name not in entries):
            dashed = [_dashed(o) for o in (name, option)]
            raise SearchOptionError(f"{dashed[0]} and {dashed[1]} go together, on the command line or from the policy: "
                                    "weights are found by `nnac tune-fusion`")
        models.append(name if name in entries else automaton(read_arpa(path, tokens)))
        weights.append(sign * float(weight))
    return Fusion(tuple(models), tuple(weights), -(args.ilm_scale or 0.0), args.length_bonus or 0.0)
