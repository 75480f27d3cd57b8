"""Two executors of one model, side by side: every integer of every layer, and what they transcribe.

The first is the reference: the training module, unless another is asked for.  Both are watched while they transcribe
the same utterances; what they make is compared in the order in which the first makes it, so the first difference is the
first cause.
`plant` puts a fault into one layer of a graph: so one can see that it is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from nnac.decode.front_end import FrontEnd, by_length, held, in_batches, is_long, pad
from nnac.decode.integer import Pace, stepping
from nnac.decode.search import Found, Hypothesis, Search
from nnac.decode.search import numpy as _numpy
from nnac.decode.search.greedy import Greedy
from nnac.decode.streams import Stream
from nnac.decode.tensors import LabelEnd
from nnac.diagnostics import did_you_mean
from nnac.errors import UserError
from nnac.evaluate import Executor
from nnac.executors.torch import Torch
from nnac.ir import Node, QGraph
from nnac.model.lm import STEP
from nnac.ops import operator

if TYPE_CHECKING:
    from nnac.executors import Subject
    from nnac.program import Program
    from nnac.train.module import GraphModule
    from nnac.train.policy import Trained

Event = tuple[str, NDArray]

MOST_FRAMES = 40_000           # of features in a batch: every integer of every layer is kept until both have made it


class CompareError(UserError):
    """The checkpoint and the program do not belong together, or a fault cannot be planted where it was asked for; one
    line."""


@frozen
class Divergence:
    """The first integers that differ.

    ``step`` counts this value's vectors: an utterance's frames, or calls of the search.  ``utterance`` is None in the
    search, where rows come and go.
    """

    utterance: int | None
    value: str
    step: int
    element: int
    expected: int
    got: int

    def __str__(self) -> str:
        where = "in the search" if self.utterance is None else f"utterance {self.utterance}"
        return f"{where}: {self.value}[{self.element}] at step {self.step} is {self.got}, not {self.expected}"


@define
class Comparison:
    """What was compared.  ``by_value``: name -> (integers compared, integers that differ); ``largest``: name ->
    greatest difference; ``unseen``: name -> integers that one of the two made and the other does not show, which are
    not compared; ``rounds``: what the search asked the second for (`nnac.decode.search.ROUNDS`), batch by batch."""

    compared: int = 0
    different: int = 0
    by_value: dict[str, list[int]] = field(factory=dict)
    largest: dict[str, int] = field(factory=dict)
    unseen: Counter[str] = field(factory=Counter)
    first: Divergence | None = None
    expected_texts: list[str] = field(factory=list)
    texts: list[str] = field(factory=list)
    steps: Counter = field(factory=Counter)
    expected_nbest: list[list[Hypothesis]] = field(factory=list)
    nbest: list[list[Hypothesis]] = field(factory=list)
    rounds: list[NDArray] = field(factory=list)

    @property
    def different_transcripts(self) -> int:
        return sum(a != b for a, b in zip(self.expected_texts, self.texts, strict=True))

    @property
    def different_nbest(self) -> int:
        """Utterances whose n-best lists differ: in a label, its time, or a score."""
        return sum(a != b for a, b in zip(self.expected_nbest, self.nbest, strict=True))

    @property
    def equal(self) -> bool:
        return not self.different and not self.different_transcripts and not self.different_nbest


def compare(first: Executor | GraphModule, second: Executor, front: FrontEnd | LabelEnd,
            features: Sequence[NDArray | Stream],
            batch: int = 32,
            advance: Callable[[int], None] | None = None, search: Search | None = None) -> Comparison:
    """Transcribe ``features`` (normalised, [T, bins] each, or streams of them) with both and compare all that they
    make; ``first`` is the reference.

    ``search`` None: greedy.  Of a beam search the n-best lists are compared as well, labels, times and scores.
    What is long is compared piece by piece, so that memory does not grow with it.
    """
    one: Executor = first if hasattr(first, "initial_state") else Torch(first)      # type: ignore[assignment, arg-type]
    search, count = search or Greedy(), len(features)
    out = Comparison(expected_texts=[""] * count, texts=[""] * count, expected_nbest=[[] for _ in features],
                     nbest=[[] for _ in features])
    pace = Pace.of(one)
    whole = [f[: len(f) // pace.hop * pace.hop] for f in features]     # a rest shorter than a frame is heard by neither
    backwards = one.bidirectional("encoder") or second.bidirectional("encoder")
    hidden = unseen(one, second)
    for rows in in_batches(whole, batch, MOST_FRAMES):
        lengths = np.array([len(whole[i]) for i in rows])
        found = _in_pieces(out, one, second, search, whole[rows[0]], rows, hidden) if not backwards else None
        if found is None:
            x, _ = pad([held(whole[i]) for i in rows])
            expected, got = _heard(one, search, x, lengths), _heard(second, search, x, lengths)
            # what follows a row's end is computed by both, heard by neither
            if backwards:
                ends = {n: lengths // pace.features * v.rate for n, v in one.values.items()}
                expected, got = expected.until(ends), got.until(ends)
            tally(out, expected.encoding + expected.searching, got.encoding + got.searching, rows, hidden)
            found = expected.found, got.found
        for i, a, b in zip(rows, found[0].nbest, found[1].nbest, strict=True):
            out.expected_nbest[i], out.nbest[i] = a, b
            out.expected_texts[i], out.texts[i] = front.text(a[0].tokens), front.text(b[0].tokens)
        out.steps.update(dict(encoder=int(pace.steps(lengths).sum())) | search.steps(found[1].rounds))
        out.rounds.append(found[1].rounds)
        if advance:
            advance(len(rows))
    return out


def _in_pieces(out: Comparison, one: Executor, two: Executor, search: Search, features: NDArray | Stream,
               rows: list[int], hidden: frozenset[str]) -> tuple[Found, Found] | None:
    """What both find in a long stream, piece by piece in turns, each piece tallied as it is made; None where it has to
    be held as a whole, or is short."""
    if not isinstance(features, Stream) or not is_long(features) or not search.goes_forward:
        return None
    if isinstance(one, Torch) and isinstance(two, Torch) and one.module is two.module:
        return None                                                     # one module is watched by one at a time
    seen: tuple[list[Event], list[Event]] = [], []
    vectors: Counter[str] = Counter()
    with stepping(one, recorder(seen[0])) as a, stepping(two, recorder(seen[1])) as b:
        pieces = [s.encode_pieces(block[:, None] for block in features.blocks()) for s in (a, b)]
        if any(p is None for p in pieces):
            return None
        going = [search.begin(s, np.array([s.frames_of(len(features))])) for s in (a, b)]
        for both in zip(*pieces, strict=True):
            for each, frames in zip(going, both, strict=True):
                for frame in frames:
                    each.take(frame)
            tally(out, *seen, rows, hidden, vectors)
            for events in seen:
                events.clear()
        return going[0].found(), going[1].found()


def compare_labels(first: Executor, second: Executor, sentences: Sequence[Sequence[int]], batch: int = 32,
                   advance: Callable[[int], None] | None = None) -> Comparison:
    """Score sentences (the labels of each) with a language model on both, and compare all that they make; ``first`` is
    the reference."""
    out, entry = Comparison(), STEP.name
    name, = first.inputs[entry]
    hidden = unseen(first, second)
    for rows in by_length([len(s) for s in sentences], batch):
        # the edge stands before each
        labels = np.zeros((1 + max(len(sentences[i]) for i in rows), len(rows), 1), np.int64)
        for b, i in enumerate(rows):
            labels[1: 1 + len(sentences[i]), b, 0] = sentences[i]
        expected: list[Event] = []
        got: list[Event] = []
        for one, events in ((first, expected), (second, got)):
            one.run(entry, {name: labels}, one.initial_state(entry, len(rows)), recorder(events))
        tally(out, expected, got, rows, hidden)
        out.steps[entry] += labels.size
        if advance:
            advance(len(rows))
    return out


@frozen(eq=False)
class _Heard:
    """What one executor made of a batch: what its search found, and what it was seen to make in either phase."""

    found: Found
    encoding: list[Event]
    searching: list[Event]

    def until(self, ends: Mapping[str, NDArray]) -> _Heard:
        """With zeros after the end of each row, where a value of the encoder has ends: vectors of each row."""
        return evolve(self, encoding=[_until(e, ends) for e in self.encoding])


def _heard(executor: Executor, search: Search, x: NDArray, lengths: NDArray) -> _Heard:
    events: list[Event] = []
    with stepping(executor, recorder(events)) as stepper:
        frames, ends = stepper.encode(x, lengths)
        encoding = len(events)
        found = search.over(stepper, frames, _numpy(ends))
    return _Heard(found, events[:encoding], events[encoding:])


def recorder(events: list[Event]) -> Callable[[str, NDArray], None]:
    """A watcher that keeps what it is shown, as [T, B, width].  Copies: searches go on writing into the states they
    were given."""

    def record(name: str, integers: NDArray) -> None:
        events.append((name, np.array(integers if integers.ndim == 3 else integers[None], np.int64)))

    return record


def _until(event: Event, ends: Mapping[str, NDArray]) -> Event:
    """The event with zeros after the end of each row, where the value has ends: vectors of each row."""
    name, v = event
    return (name, v * (np.arange(len(v))[:, None] < ends[name])[:, :, None]) if name in ends else event


def unseen(one: Executor, two: Executor) -> frozenset[str]:
    """The values that one of two executors does not show: they cannot be compared."""
    return frozenset(v for e in (one, two) for v in e.values if not e.shows(v))


def tally(out: Comparison, expected: list[Event], got: list[Event], rows: Sequence[int],
          hidden: frozenset[str] = frozenset(), vectors: Counter[str] | None = None) -> None:
    """Compare event by event, in the order of the first.  A value that the second never makes counts as different, all
    of it, unless it is ``hidden`` (`unseen`): then it is counted and not compared.  ``vectors`` counts those of each
    value from piece to piece, where the events are a piece of a whole."""
    for name, v in (*expected, *got):
        if name in hidden:
            out.unseen[name] += v.size
    expected = [event for event in expected if event[0] not in hidden]
    theirs: dict[str, list[NDArray]] = {}
    for name, v in got:
        theirs.setdefault(name, []).append(v)
    calls: Counter[str] = Counter()
    vectors = Counter() if vectors is None else vectors
    for name, a in expected:
        others = theirs.get(name, [])
        b = others[calls[name]] if calls[name] < len(others) else None
        counts = out.by_value.setdefault(name, [0, 0])
        counts[0] += a.size
        if b is None or b.shape != a.shape:
            counts[1] += a.size
            where = "it never makes it" if b is None else f"its shape there is {b.shape}, not {a.shape}"
            out.first = out.first or Divergence(None, f"{name} ({where})", vectors[name], 0, 0, 0)
        elif (wrong := a != b).any():
            counts[1] += int(wrong.sum())
            out.largest[name] = max(out.largest.get(name, 0), int(np.abs(a - b).max()))
            t, r, e = (int(v) for v in np.argwhere(wrong)[0])
            # whole sequences are the encoder's: their rows are the utterances
            at = rows[r] if len(a) > 1 else None
            out.first = out.first or Divergence(at, name, vectors[name] + t, e, int(a[t, r, e]), int(b[t, r, e]))
        calls[name] += 1
        vectors[name] += len(a)
    out.compared = sum(c for c, _ in out.by_value.values())
    out.different = sum(d for _, d in out.by_value.values())


# ------------------------------------------------------------------------------------------- checkpoints and programs

def same_model(trained: Trained, program: Program, names: tuple[str, str] = ("the checkpoint", "the program")) -> None:
    """CompareError unless the program says that it was compiled from this training under this plan."""
    from nnac.plan import Plan, PlanError

    checkpoint, compiled = names
    try:
        plan = Plan.from_json(dict(program.plan))
    except (PlanError, KeyError, TypeError, ValueError):
        raise CompareError(f"{compiled} carries no plan: it was not compiled from a checkpoint") from None
    if plan.digest != trained.plan.digest:
        raise CompareError(f"{compiled} was compiled under another plan (`{plan.name}`, {plan.digest[:12]}) than that "
                           f"of {checkpoint} "
                           f"(`{trained.plan.name}`, {trained.plan.digest[:12]}): compile the checkpoint again")
    if program.metadata.get("training") != trained.training:
        theirs = program.metadata.get("training") or {}
        differ = sorted(k for k in {*theirs, *trained.training} if theirs.get(k) != trained.training.get(k))
        raise CompareError(f"{compiled} was compiled from another training than {checkpoint} (they differ in "
                           f"{', '.join(differ)}): "
                           "compile the checkpoint again")


_FAULTS = {"bias", "forward.bias", "weight"}


def plant(graph: QGraph, path: str) -> tuple[QGraph, str]:
    """A bound graph with one fault in the layer ``path``: (the graph, what was changed).

    A bias of one row moves by one unit of the row's output (by 1/16 of a pre-activation, in an LSTM's cell input gate);
    a layer without biases has one code of its weights changed: that of the blank, in an embedding.
    CompareError: no such layer, or one that has neither.
    """
    able = [n.path for n in graph.nodes if _FAULTS & n.constants.keys()]
    if path not in able:
        why = "has neither weights nor biases" if path in graph.by_path else "is no layer of the model"
        raise CompareError(f"`{path}` {why}, so no fault can be planted there; {did_you_mean(path, able)}")
    bad, what = _faulty(graph.by_path[path])
    return graph.with_nodes(tuple(bad if n.path == path else n for n in graph.nodes)), what


def with_fault(subject: Subject, layer: str) -> tuple[Subject, str]:
    """The same model with one fault planted in ``layer``, and what the fault is.  CompareError as `plant`."""
    graph, what = plant(subject.graph, layer)
    return evolve(subject, bound=graph, compiled=None), what


def _faulty(node: Node) -> tuple[Node, str]:
    c = node.constants
    name = next(n for n in ("bias", "forward.bias", "weight") if n in c)
    value = np.array(c[name])
    if name == "weight":                                          # the greatest code of the first row changes its sign
        at: tuple[int, ...] = (0, int(np.abs(value[0].astype(np.int64)).argmax()))
        value[at] = min(-int(value[at]), 127)
    else:
        prefix = name.removesuffix("bias") + ("input_" if node.attributes.get("variant") == "sum16" else "")
        row, unit = operator(node.op).seen_bias(node.attributes)
        m, s = (int(np.broadcast_to(np.asarray(c[prefix + k], np.int64), value.shape)[row])
                for k in ("multiplier", "shift"))
        at = (row,)
        value[at] += -(-(unit << s) // m)
    what = f"{node.path}: {name}[{', '.join(map(str, at))}] is {int(value[at])} instead of {int(c[name][at])}"
    return evolve(node, constants=dict(c) | {name: value}), what
