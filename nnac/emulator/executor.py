"""The emulator as an executor: a program's entry points on integers, for any number of rows, as greedy decoding calls
them.

Rows run in lockstep.  A machine is made for the next power of two of rows, since search shrinks and grows its batch at
every symbol; rows that pad it compute nothing that anybody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from attrs import Factory, define, field
from numpy.typing import NDArray

from nnac.emulator.errors import MachineError
from nnac.emulator.image import Image, image
from nnac.emulator.machine import Machine
from nnac.entry import Calls
from nnac.evaluate import State, Watch, check_lengths
from nnac.ir import Value
from nnac.program import INIT, Entry, Program, model_entry


@define(eq=False)
class Emulator:
    """Keeps the protocol of `nnac.evaluate.Executor`: values, inputs, outputs, bidirectional, initial_state, run.

    fast  run translated plans; False: interpret every instruction (the same integers, slower)
    """

    program: Program
    fast: bool = True
    _machines: dict[int, Machine] = field(factory=dict, init=False)
    _image: Image = field(init=False, default=Factory(lambda self: image(self.program), takes_self=True))

    def __attrs_post_init__(self) -> None:
        for e in self.program.entries.values():
            for p in (*e.inputs, *e.outputs):
                if p.value not in self.program.values and p.value not in self.program.joins:
                    raise MachineError(f"entry {e.name} has the port `{p.value}`, and the program does not say what "
                                       f"that is")

    @property
    def values(self) -> Mapping[str, Value]:
        return self.program.values

    def passes(self, entry: str) -> tuple[Entry, ...]:
        """The entries that together are one of the model's, one step a call, in the order in which they run: more than
        one for a bidirectional encoder (`nnac.schedule.passes`)."""
        return self.program.parts(entry)

    @cached_property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        return {entry: self._outside(entry)[0] for entry in self._entries}

    @cached_property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return {entry: self._outside(entry)[1] for entry in self._entries}

    @property
    def _entries(self) -> dict[str, None]:
        return dict.fromkeys(e.model_entry for n, e in self.program.entries.items() if n != INIT)

    def _outside(self, entry: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the passes of an entry take from outside, and what they make that none of them takes."""
        passes = self.passes(entry)
        made = [p.value for e in passes for p in e.outputs]
        joined = {v: halves for v, halves in self.program.joins.items() if set(halves) <= set(made)}
        taken = {p.value for e in passes for p in e.inputs} | {h for halves in joined.values() for h in halves}
        made += joined
        return (tuple(dict.fromkeys(p.value for e in passes for p in e.inputs if p.value not in made)),
                tuple(v for v in made if v not in taken))

    def bidirectional(self, entry: str) -> bool:
        """Whether one of the entry's passes goes through the sequence from its end."""
        return any(e.backward for e in self.passes(entry))

    def shows(self, value: str) -> bool:
        return True

    def machine(self, rows: int) -> Machine:
        """The machine that runs ``rows`` rows (made once for each power of two)."""
        size = 1 << max(0, rows - 1).bit_length()
        if size not in self._machines:
            self._machines[size] = Machine(self._image, batch=size, fast=self.fast)
        return self._machines[size]

    def initial_state(self, entry: str, batch: int) -> State:
        """The states that belong to ``entry``, at their initial values: name -> [batch, width]."""
        return {s.name: np.broadcast_to(s.array(), (batch, s.width)).astype(np.int64)
                for s in self.program.states if model_entry(s.entry) == entry}

    def cycles(self, entry: str) -> int:
        """Cycles of one step of ``entry``, for one row: they depend on no data."""
        return self.calls(entry).one

    def calls(self, entry: str, moved: bool = False) -> Calls:
        """What calls of ``entry`` cost, by the hypotheses that share them (`nnac.program.Program.calls`), of the
        cycles that were counted."""
        for e in (*self.passes(entry), *self.program.sizes(entry)):
            assert self._image.entry(e.name).timing.cycles == e.cycles, f"{e.name}: counted is not predicted"
        return self.program.calls(entry, moved)

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State, watch: Watch | None = None,
            lengths: NDArray | None = None) -> tuple[dict[str, NDArray], State]:
        """inputs [T, B, width] integers -> (outputs [T', B, width], new state); T whole steps.  MachineError: what the
        program does wrong.  TooLongError: as `nnac.evaluate.evaluate`.

        ``lengths``: the steps of each row (default: all), where the entry has a backward pass.  It begins at a row's
        last step, with its states at their initial values, and leaves the row's ``state`` as it was.
        """
        values, after = dict(inputs), dict(state)
        # shorter than a step: nothing is computed
        rates = {p.value: p.vectors // e.steps for e in self.passes(entry) for p in e.inputs}
        if any(len(v) < rates.get(k, 1) for k, v in inputs.items()):
            rows = next(iter(inputs.values())).shape[1]
            return {k: np.zeros((0, rows, self.values[k].width), np.int64) for k in self.outputs[entry]}, after
        steps = {len(v) // rates.get(k, 1) for k, v in inputs.items()}
        assert len(steps) == 1, f"inputs of different length: { {k: len(v) for k, v in inputs.items()} }"
        (total,) = steps
        rows = next(iter(inputs.values())).shape[1]
        if total == 1 and rows > 1 and (several := self.program.sizes(entry)):
            return self._together(next((e for e in several if e.hypotheses >= rows), several[-1]), inputs, state, watch)
        halves = {h for pair in self.program.joins.values() for h in pair}
        for one in self.passes(entry):
            seen: dict[str, NDArray] = {}
            given = {p.value: values[p.value] for p in one.inputs}
            if one.backward:
                order = _from_the_end(np.full(rows, total) if lengths is None
                                      else np.minimum(np.asarray(lengths), total), total)
                made, _ = self._pass(one, {k: _ordered(v, order, self.values[k].rate) for k, v in given.items()},
                                     self.initial_state(entry, rows), None)
                values |= {k: _ordered(v, order, self.values[k].rate) for k, v in made.items()}
            else:
                made, now = self._pass(one, given, after, seen if watch else None)
                values |= made
                after |= {s.name: now[s.name] for s in self.program.states if s.entry == one.part}
            for name, parts in self.program.joins.items():
                if name not in values and values.keys() >= set(parts):
                    values[name] = np.concatenate([values[h] for h in parts], -1)
                    seen[name] = values[name]
            if watch:
                for name, v in seen.items():
                    if name not in halves:
                        watch(name, v)
        check_lengths(self.program.states, after)
        return {k: values[k] for k in self.outputs[entry]}, {k: after[k] for k in state}

    def _together(self, one: Entry, inputs: Mapping[str, NDArray], state: State,
                  watch: Watch | None) -> tuple[dict[str, NDArray], State]:
        """One step of every row, ``one.hypotheses`` rows on one machine: row r of the batch is hypothesis r modulo
        that."""
        rows, k = next(iter(inputs.values())).shape[1], one.hypotheses
        machines = -(-rows // k)
        m = self.machine(machines)

        def apart(v: NDArray) -> NDArray:
            """[rows, width] -> [hypotheses, batch, width]."""
            return _padded(v, m.batch * k, 0).reshape(m.batch, k, -1).swapaxes(0, 1)

        def back(v: NDArray) -> NDArray:
            return v.swapaxes(0, 1).reshape(m.batch * k, -1)[:rows]

        m.load_state({name: apart(v) for name, v in state.items()})
        keep = None if watch is None else lambda name, v: watch(name, back(v)[None])
        made = m.run(one.name, {name: apart(v[0]) for name, v in inputs.items()}, keep)
        after = m.states_of(k)
        return {name: back(v)[None] for name, v in made.items()}, {name: back(after[name]) for name in state}

    def _pass(self, one: Entry, inputs: Mapping[str, NDArray], state: State,
              seen: dict[str, NDArray] | None) -> tuple[dict[str, NDArray], State]:
        """One entry of the program over a sequence, in the order in which it wants its steps; every value it made into
        ``seen``."""
        many = self.program.entries.get(f"{one.part}.steps")
        rows = next(iter(inputs.values())).shape[1]
        m = self.machine(rows)
        m.load_state({k: _padded(v, m.batch, 0) for k, v in state.items()})
        collected: dict[str, list[NDArray]] = {}
        watched: dict[str, list[NDArray]] = {}
        keep = None if seen is None else lambda name, v: watched.setdefault(name, []).append(v[:, :rows])
        rates = {p.value: p.vectors // one.steps for p in one.inputs}
        t, end = 0, min(len(v) // rates[k] for k, v in inputs.items())
        while t < end:
            # frame batching for whole groups, single steps for the rest
            step = many if many and end - t >= many.steps else one
            given = {}
            for name, v in inputs.items():
                rate = rates[name]
                part = v[t * rate:(t + step.steps) * rate]
                given[name] = _padded(_turned(part, rate) if one.backward else part, m.batch, 1)
            for name, v in m.run(step.name, given, keep).items():
                collected.setdefault(name, []).append(_turned(v[:, :rows], self.values[name].rate) if one.backward
                                                      else v[:, :rows])
            t += step.steps
        if seen is not None:
            seen |= {name: np.concatenate(parts) for name, parts in watched.items()}
        after = m.state()
        return {k: np.concatenate(v) for k, v in collected.items()}, {k: v[:rows] for k, v in after.items()}


def _from_the_end(lengths: NDArray, total: int) -> NDArray:
    """[total, rows]: which step of each row is the t-th from its end; beyond its first, the steps that do not count.
    Its own inverse."""
    t = np.arange(total)[:, None]
    return np.where(t < lengths, lengths - 1 - t, t)


def _ordered(v: NDArray, order: NDArray, rate: int) -> NDArray:
    """[T, rows, width] with the steps of each row in this order; the ``rate`` vectors of a step stay as they are."""
    steps = v[:len(order) * rate].reshape(len(order), rate, *v.shape[1:])
    picked = np.take_along_axis(steps, order[:, None, :, None], 0)
    return picked.reshape(-1, *v.shape[1:])


def _turned(v: NDArray, rate: int) -> NDArray:
    """The steps of a call the other way round: a backward entry takes and makes them in their natural order."""
    return v.reshape(-1, rate, *v.shape[1:])[::-1].reshape(v.shape)


def _padded(v: NDArray, size: int, axis: int) -> NDArray:
    """``v`` with zero rows up to ``size``."""
    missing = size - v.shape[axis]
    return v if not missing else np.pad(v, [(0, missing if a == axis else 0) for a in range(v.ndim)])
