"""Hostile input of every kind, thousands of each where they are cheap: what is right must come out right, everything
else refused in one line.

    python -m benchmarks.bench_robust [--share 0.1] [--seed 1] [KIND …]

A case is bad if it ends in an exception of Python's own, hangs, or gives what is wrong.  The first bad case of a kind
is printed with its seed. Ends with one JSON line: tried and bad by kind; the exit status is 1 if anything was bad.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.small import Small, make
from nnac import checkpoint
from nnac.cli import main as cli
from nnac.diagnostics import DiagnosticError
from nnac.errors import UserError

SLOW_S = 20.0                  # of one case: a hang
VALUES = [None, True, False, -1, 0, 1, 7, 255, 2**31, 2**32, 2**63, 10**30, -(2**40), 0.5, 1.5, -0.0, 1e-300, 1e300, "",
          "x", "1", "\x1b[2J", "é",
          "x" * 5000, [], {}, [[]], [1, 2, 3], [None], {"a": 1}, ...]
KINDS: dict[str, tuple[int, Callable[[Any, random.Random, Path, Small], None]]] = {}


def kind(count: int) -> Callable[[Any], Any]:
    """Register one kind: a function that tries one case, and how many there are."""
    def register(one: Any) -> Any:
        KINDS[one.__name__] = (count, one)
        return one
    return register


def leaves(data: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    for k, v in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from leaves(v, (*path, k))


def copied(value: Any) -> Any:
    """A value that nobody else has: the next change may go into it."""
    return value if value is ... else json.loads(json.dumps(value))


def changed(data: Any, r: random.Random, keep: tuple[str, ...] = ()) -> Any:
    """A copy of JSON with one to three values exchanged, taken away or added."""
    copy = json.loads(json.dumps(data))
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        paths = [p for p in leaves(copy) if p and p[0] not in keep]
        if not paths:
            return copy
        path = r.choice(paths)
        at = copy
        for k in path[:-1]:
            at = at[k]
        value = copied(r.choice(VALUES))
        if value is ...:
            del at[path[-1]]
        elif isinstance(at, dict) and r.random() < 0.1:
            at[r.choice(["x", "self", "", "name ", "\x00"])] = value
        else:
            at[path[-1]] = value
    return copy


def flipped(data: bytes, r: random.Random) -> bytes:
    """A copy with bytes changed, cut, doubled or put in."""
    out = bytearray(data)
    for _ in range(r.randint(1, 4)):
        at, how = r.randrange(len(out) or 1), r.random()
        if how < 0.5 and out:
            out[at] = r.choice([0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)])
        elif how < 0.7:
            out = out[:at]
        elif how < 0.85:
            out[at:at] = bytes(r.randrange(256) for _ in range(r.randint(1, 9)))
        else:
            out[at:at] = out[at:at + r.randint(1, 200)]
    return bytes(out)


# ------------------------------------------------------------------------------------------------ audio

def _g711(tag: int, code: int) -> int:
    """The sample of an A-law (tag 6) or mu-law (7) code.  Source: ITU-T G.711, in sixteenths of its 13 and 14 bits."""
    code = code ^ 0x55 if tag == 6 else ~code & 0xFF
    segment, step = code >> 4 & 7, code & 15
    if tag == 6:
        size = (2 * step + 1) * 8 if segment == 0 else (2 * step + 33) * 8 << segment - 1
        return size if code & 0x80 else -size
    size = ((2 * step + 33) << segment + 2) - 132
    return -size if code & 0x80 else size


def _wav(r: random.Random) -> tuple[bytes, np.ndarray, int]:
    """A file that any recorder might write, its samples as they must be read, and its rate."""
    width, channels, n = r.choice([1, 2, 3, 4, 8]), r.choice([1, 1, 2, 5]), r.choice([0, 1, 2, 255, 1000])
    floating = width == 8 or (width == 4 and r.random() < 0.5)
    law = width == 1 and r.random() < 0.5 and r.choice([6, 7])
    order, name = ("<", r.choice([b"RIFF", b"RIFF", b"RF64"])) if r.random() < 0.85 else (">", b"RIFX")
    top = 2 ** (8 * width - 1)
    g = np.random.default_rng(r.randrange(2**32))
    if floating:
        values = g.uniform(-1, 1, (n, channels)).astype(f"f{width}")
        data, expected = values.astype(f"{order}f{width}").tobytes(), values.astype(np.float64)
    elif law:
        codes = g.integers(0, 256, (n, channels))
        data, expected = codes.astype(np.uint8).tobytes(), np.array([_g711(law, c) for c in range(256)])[codes] / 32768
    else:
        codes = g.integers(-top, top, (n, channels))
        raw = np.frombuffer(codes.astype(order + "i8").tobytes(), np.uint8).reshape(-1, 8)
        data = (codes + 128).astype(np.uint8).tobytes() if width == 1 else (raw[:, :width] if order == "<"
                                                                            else raw[:, 8 - width:]).tobytes()
        expected = codes / top
    tag, rate = (3 if floating else law or 1), r.choice([8000, 16000, 44100])
    extensible = r.random() < 0.3
    form = struct.pack(order + "HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * width * channels,
                       width * channels, 8 * width)
    if extensible:
        form += struct.pack(order + "HHIH", 22, 8 * width, 0, tag) + bytes.fromhex("000000001000800000aa00389b71")

    def chunk(key: bytes, content: bytes, size: int | None = None) -> bytes:
        pad = b"\0" if len(content) % 2 and r.random() < 0.5 else b""
        return key + struct.pack(order + "I", len(content) if size is None else size) + content + pad

    stray = [chunk(r.choice([b"LIST", b"bext", b"JUNK", b"xyz ", b"fact"]), bytes(r.choice([0, 4, 26, 600])))
             for _ in range(r.randint(0, 3))]
    if r.random() < 0.3:
        stray.append(b"LIST" + struct.pack(order + "I", 5) + b"abcde")        # no pad byte before `data`
    streamed = name != b"RF64" and r.random() < 0.3
    size = r.choice([0xFFFFFFFF, 0x7FFFF000, 0x80000000]) if streamed else 0xFFFFFFFF if name == b"RF64" else len(data)
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(data), n, 0)) if name == b"RF64" else b""
    tail = b"" if streamed else (b"\0" if len(data) % 2 else b"") + b"".join(stray[:1])
    body = b"WAVE" + ds64 + chunk(b"fmt ", form) + b"".join(stray) + b"data" + struct.pack(order + "I",
        size) + data + tail
    return name + struct.pack(order + "I", min(len(body), 0xFFFFFFFF)) + body, expected.mean(1).astype(np.float32), rate


@kind(1500)
def wav_right(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.speech.audio import load_audio

    data, expected, rate = _wav(r)
    (folder / "x.wav").write_bytes(data)
    assert np.array_equal(load_audio(folder / "x.wav", rate), expected)


@kind(2500)
def wav_damaged(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.speech.audio import load_audio

    data = _wav(r)[0]
    head = flipped(data[:120], r) + data[120:]
    (folder / "x.wav").write_bytes(head if r.random() < 0.8 else flipped(data, r))
    assert np.isfinite(load_audio(folder / "x.wav", 16000)).all()


@kind(40)
def audio_lengths(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.speech.audio import write_wav

    n = r.choice([0, 1, r.randrange(2000), r.randrange(2000), r.randrange(40_000)])
    write_wav(folder / "x.wav", np.random.default_rng(n).integers(-9000, 9000, n).astype(np.int16),
              r.choice([8000, 16000]))
    assert cli(["compare", str(small.checkpoint), str(small.program), "--json", "--audio", str(folder / "x.wav")]) == 0


# --------------------------------------------------------------------------------------------- programs and checkpoints

@kind(1500)
def program_bytes(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.program import Program

    whole = small.program.read_bytes()
    data = flipped(whole, r)
    with contextlib.suppress(UserError):
        assert Program.from_bytes(data).to_bytes() == whole


@kind(1500)
def program_contents(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    from safetensors.numpy import save

    from nnac.decode.front_end import front_end_of
    from nnac.emulator.executor import Emulator
    from nnac.emulator.image import image
    from nnac.program import FORMAT, VERSION, Program, _digest

    program = cache.setdefault("program", Program.load(small.program))
    content = changed(cache.setdefault("content", json.loads(json.dumps(program._content()))), r)
    tensors = {"dram": program.dram}
    for e in program.entries.values():
        words = np.array(e.words)
        if r.random() < 0.1:
            words[r.randrange(len(words)), r.randrange(2)] ^= np.uint64(1 << r.randrange(64))
        tensors[f"words.{e.name}"], tensors[f"lines.{e.name}"] = words, e.lines
    text = json.dumps(content)
    data = save(tensors, {"nnac": json.dumps({"format": FORMAT, "version": VERSION, "sha256": _digest(tensors, text),
                                              "content": text})})
    read = Program.from_bytes(data)
    str(read)
    front_end_of(read)
    emulator = Emulator(read)
    for entry in image(read).entries.values():
        _ = entry.timing
    if r.random() < 0.2:
        from nnac.executors import Subject
        from nnac.runtime import recognise

        recognise(Subject(compiled=read), [np.zeros((9, read.values["features"].width), np.float32)], 0.1, quiet=True)
    assert all(emulator.cycles(e) == program_cycles(program, e) for e in ("encoder", "prediction", "joint")
               if same_words(program, read, e))


def same_words(a: Any, b: Any, entry: str) -> bool:
    return a.target == b.target and all(np.array_equal(e.words, b.entries[n].words) for n, e in a.entries.items()
                                        if n in b.entries)\
        and {n for n in a.entries} == {n for n in b.entries}


def program_cycles(program: Any, entry: str) -> int:
    return sum(e.cycles for n, e in program.entries.items() if n != "init" and e.model_entry == entry and e.steps == 1)


@kind(400)
def checkpoint_bytes(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.train.policy import load_module

    whole = small.checkpoint.read_bytes()
    data = flipped(whole, r)
    (folder / "x").write_bytes(data)
    try:
        load_module(folder / "x")
        assert data == whole
    except UserError:
        pass


@kind(300)
def checkpoint_contents(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.decode.recogniser import load_recogniser
    from nnac.train.policy import load_module

    path, load = r.choice([(small.checkpoint, load_module), (small.network, load_recogniser)])
    file = cache.setdefault(str(path), checkpoint.load(path))
    tensors = dict(file.tensors)
    if r.random() < 0.3:
        name = r.choice(list(tensors))
        bad = np.array(tensors[name], dtype=np.float32 if tensors[name].dtype.kind == "f"
                       else tensors[name].dtype).reshape(-1)
        if bad.size and bad.dtype.kind == "f":
            bad[r.randrange(bad.size)] = r.choice([np.nan, np.inf, 1e38, 0.0])
        tensors[name] = bad if r.random() < 0.3 else bad.reshape(file.tensors[name].shape)
        checkpoint.save(folder / "x", tensors, file.metadata)
    else:
        checkpoint.save(folder / "x", tensors, changed(file.metadata, r))
    load(folder / "x")


# ------------------------------------------------------------------------------------------------ texts

@kind(600)
def experiments(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.report import experiments as e

    lines = cache.setdefault("lines", Path("specs/comparison/all.toml").read_text("utf-8").split("\n"))
    words = ["3", "1.5", "true", "[]", "{}", '"x"', "[[]]", "-1", "nan", "inf", "[1, 2]", "1979-05-27", "9" * 400,
             "9" * 5000, "[" * 3000,
             '"\\u001b"', "", "x", '["a", 1]', "{ a = { b = 1 } }", "0x10", "1e400"]
    at = r.choice([i for i, line in enumerate(lines) if "=" in line and not line.startswith("#")])
    text = "\n".join([*lines[:at], f"{lines[at].partition('=')[0]}= {r.choice(words)}", *lines[at + 1:]])
    (folder / "e.toml").write_bytes(text.encode() if r.random() < 0.8 else flipped(text.encode(), r))
    e.load(folder / "e.toml")


@kind(600)
def results(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.report import outcomes

    data = cache.setdefault("data", json.loads(sorted(Path("results").glob("int8-s0*.json"))[0].read_text("utf-8")))
    text = json.dumps(changed(data, r))
    (folder / "x.json").write_bytes(text.encode() if r.random() < 0.8 else flipped(text.encode(), r))
    outcomes.load(folder / "x.json")


@kind(600)
def jobs(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.policy import loads
    from nnac.train import baseline, language
    from nnac.train.loop import job_of, read_job
    from nnac.train.pace import Run
    from nnac.train.policy import PolicyConfig, PolicyTask

    if "jobs" not in cache:
        plan = loads(small.policy.read_text("utf-8")).plan
        tasks = [PolicyTask(plan, PolicyConfig.of(plan, steps=3), "f", "c", "o"),
                 baseline.FloatTask(baseline.TrainConfig(), "c", "o"),
                 language.FloatTask(language.LmTraining(), "t", "o"),
                 language.PolicyTask(plan, language.LmPolicyConfig.of(plan, steps=3), "f", "t", "o")]
        cache["jobs"] = [json.loads(json.dumps(job_of(task, Run()))) for task in tasks]
    text = json.dumps(changed(r.choice(cache["jobs"]), r))
    (folder / "j").write_bytes(text.encode() if r.random() < 0.8 else flipped(text.encode(), r))
    read_job(folder / "j")


@kind(300)
def challenge_parts(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.graphblas.challenge import Kept

    good = {"of": {"neurons": 1024, "layers": 3, "images": "ab"}, "active": [0, 2], "touched": 5, "seconds": 0.5}
    text = json.dumps(changed(good, r)).encode()
    (folder / "p").write_bytes(text if r.random() < 0.8 else flipped(text, r))
    assert all(0 <= i < 3 for i in Kept.read(folder / "p", 3).part.active)


@kind(1000)
def manifests(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.speech.audio import read_manifest

    rows = [changed({"audio": "a.wav", "text": "turn on the light", "duration": 1.5}, r) for _ in range(3)]
    text = "\n".join(r.choice([json.dumps(row), json.dumps(row), "[" * 100_000, "9" * 5000, ""]) for row in rows)
    (folder / "m.jsonl").write_bytes(text.encode() if r.random() < 0.7 else flipped(text.encode(), r))
    read_manifest(folder / "m.jsonl")


@kind(2000)
def policies(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.language.check import check_text
    from nnac.language.format import format_text

    texts = cache.setdefault("texts", [p.read_text("utf-8") for p in sorted(Path("specs").rglob("*.nnac"))])
    words = ["0", "-1", "1e308", "int0", "int99", "9" * 30, "fraction(0)", "codebook(values=[1])", "nf4", "{", "}", "(",
             "\r", "\0",
             "->", "..", "%", "é"]
    text = r.choice(texts)
    for _ in range(r.randint(1, 3)):
        at = r.randrange(len(text) + 1)
        text = text[:at] + r.choice(words) + text[at + r.choice([0, 1, 8]):]
    check_text(text)
    once = format_text(text, "p")
    assert format_text(once, "p") == once


@kind(200)
def inputs_of_debug(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.commands.debug import give_inputs
    from nnac.emulator import Machine
    from nnac.program import Program

    out = io.BytesIO()
    values: Any = np.zeros((4, 8), r.choice([np.int8, np.int64, np.uint64, np.float32, np.bool_, np.complex64, object,
                                             "U3"]))
    if values.dtype == np.uint64:
        values = values + np.uint64(2**63 + 5)
    if r.random() < 0.3:
        np.savez(out, a=values) if values.dtype != object else None
    elif values.dtype != object:
        np.save(out, values[r.choice([0, slice(None), np.newaxis])])
    data = out.getvalue()
    (folder / "x.npy").write_bytes(data if r.random() < 0.5 or not data else flipped(data, r))
    with contextlib.suppress(ValueError):
        give_inputs(Machine(Program.load(small.program), fast=False), "encoder.step", [f"features={folder / 'x.npy'}"])


@kind(400)
def arrays(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    """Files of arrays, damaged, or with headers that promise what they like."""
    from nnac.arrays import read_arrays

    values = np.zeros(r.choice([(), (3,), (0, 2), (40, 5)]), r.choice([np.int8, np.float32, np.bool_, "U3"]))
    out = io.BytesIO()
    if r.random() < 0.4:
        r.choice([np.savez, np.savez_compressed])(out, a=values, b=values)
    else:
        np.lib.format.write_array_header_1_0(out, dict(
            descr=r.choice([values.dtype.str, "|O", "<f8", "|V0"]), fortran_order=r.random() < 0.5,
            shape=r.choice([values.shape, (10**12,), (10**30,), (-1,), (2**62, 4), (2**63,), (10**9, 0)])))
        out.write(values.tobytes())
    (folder / "x").write_bytes(out.getvalue() if r.random() < 0.4 else flipped(out.getvalue(), r))
    found = read_arrays(folder / "x")
    assert sum(a.nbytes for a in (found.values() if isinstance(found, dict) else [found])) < 1 << 20


# ------------------------------------------------------------------------------------------------ models from elsewhere

def _plain(stack: int = 1) -> dict[str, Any]:
    """The tensors of a transducer that the map `plain` reads: 8 features, 12 cells, 7 labels."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    parts = {"encoder.lstm": nn.LSTM(8 * stack, 12), "encoder.linear": nn.Linear(12, 10),
             "prediction.embedding": nn.Embedding(7, 6), "prediction.lstm": nn.LSTM(6, 12),
             "prediction.linear": nn.Linear(12, 10), "joint.output": nn.Linear(10, 7)}
    return {f"{name}.{n}": p.detach().clone() for name, m in parts.items() for n, p in m.named_parameters()}


def _archive(data: bytes, how: str, sparse: int = 0) -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=how) as archive:
        member = tarfile.TarInfo("model_weights.ckpt")
        member.size = len(data)
        if sparse:                                         # so many zeros, of which the file has none
            member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{sparse},0",
                                  "GNU.sparse.size": str(sparse), "GNU.sparse.name": member.name}
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@kind(600)
def import_files(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    """Checkpoints of other toolkits: damaged, or of tensors that are none, or that promise what they like."""
    import torch
    from safetensors.torch import save

    from nnac.imports.files import tensors

    if "made" not in cache:
        weights, one = _plain(), torch.zeros(1)
        odd: dict[str, Any] = {
            "repeated": one.expand(10**r.choice([10, 11, 12])), "halves repeated": one.half().expand(10**10),
            "meta": torch.empty(10**12, device="meta"), "nothing": torch.zeros(0), "complex": torch.zeros(2) * 1j,
            "sparse": torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.ones(1), (10**6, 10**6)),
            "nan": one * math.nan, "large": torch.full((2,), 1e300, dtype=torch.float64), "scalar": torch.tensor(1.0),
            "whole": torch.ones(3, dtype=torch.int64), "text": "x", "none": None, "deep": {"a": {"b": one}}}

        def saved(what: Any, **how: Any) -> bytes:
            out = io.BytesIO()
            torch.save(what, out, **how)
            return out.getvalue()

        whole = saved(weights)
        legacy = saved(weights, _use_new_zipfile_serialization=False)
        good = [whole, legacy, save(weights), _archive(whole, "w"), _archive(whole, "w:gz"),
                saved({"state_dict": weights, "epoch": 3})]
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as given, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
            for name in given.namelist():
                out.writestr(name, bytes(1 << 26) if name.endswith("data/0") else given.read(name))
        bad = [saved(weights | {"x": v}) for v in odd.values()] + [saved(v) for v in odd.values()]
        bad += [save({"x": torch.zeros(0)}), _archive(whole, "w", 1 << 44), _archive(bytes(1 << 26), "w:gz"),
                packed.getvalue(), _archive(b"", "w"), b"", b"PK\3\4", b"\x80\2.", b"\x80", bytes(600),
                struct.pack("<Q", 2**63) + b"{}"]
        cache["made"] = good, bad
    good, bad = cache["made"]
    whole = r.choice(good)
    data = r.choice(bad) if r.random() < 0.3 else flipped(whole, r)
    (folder / "x.pt").write_bytes(data)
    found = tensors(folder / "x.pt")
    assert sum(v.numel() for v in found.values()) < 1 << 20


@kind(60)
def import_shapes(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    """A checkpoint whose tensors are not what its map says, and options that no model has."""
    import torch

    from nnac.imports import maps
    from nnac.imports.model import captured

    weights = dict(cache.setdefault("weights", _plain()))
    name = r.choice(list(weights))
    shape = list(weights[name].shape)
    at = r.randrange(len(shape))
    shape[at] = r.choice([0, 1, shape[at] - 1, shape[at] + 1, 3 * shape[at]])
    how = r.randrange(6)
    if how == 0:
        del weights[name]
    elif how == 1:
        weights[r.choice([name + ".x", "x", "", ".", "encoder..x", "joint.encoder.weight", "encoder.lstm.weight_hr_l0",
                          "encoder.lstm.weight_ih_l0_reverse", "encoder.lstm.weight_ih_l1"])] = torch.zeros(shape)
    else:
        weights[name] = torch.zeros(r.choice([shape, shape[:1], [], [*shape, 1], [1, *shape]]))
    options = r.choice([{}, {}, {"stack": 2.0}, {"stack": 1000.0}, {"stak": 1.0}])
    captured(maps.named("plain"), weights, options)


@kind(400)
def import_maps(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    """Maps of a user's own; what is no map is refused before a tensor is read."""
    from nnac.imports import maps
    from nnac.imports.model import captured

    texts = cache.setdefault("texts", [maps.FOLDER.joinpath(f"{n}.toml").read_text("utf-8") for n in maps.names()])
    words = ["3", "1.5", "true", "[]", "{}", '"x"', "[[]]", "-1", "0", "nan", "inf", "1979-05-27", "9" * 400,
             "9" * 5000, "[" * 3000, '"\\u001b"', "", '""', '"."', '"{i}"', '"{i.x}"', '"encoder"', '["a", 1]',
             '[{ each = "encoder", steps = [{ lstm = "encoder.lstm" }] }]', '[{ stack = 0 }]', '[{ stack = 1e9 }]',
             '[{ each = "encoder{i}", by = 0, steps = [{ stack = 2 }] }]', '[{ lstm = "runs" }]', '[{ stack = "x" }]',
             '[{ conv = "encoder.lstm", stride = -1 }]', '[{ norm = "encoder.lstm", epsilon = "x" }]',
             '[{ residual = ' * 2000]
    text = r.choice(texts)
    lines = text.split("\n")
    at = r.choice([i for i, line in enumerate(lines) if "=" in line and not line.startswith(("#", " "))])
    lines[at] = f"{lines[at].partition('=')[0]}= {r.choice(words)}"
    text = "\n".join(lines)
    (folder / "m.toml").write_bytes(text.encode() if r.random() < 0.8 else flipped(text.encode(), r))
    captured(maps.load(folder / "m.toml"), cache.setdefault("weights", _plain()))


@kind(300)
def saved_models(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    """What `nnac import` wrote, changed under a right checksum: in a policy, for `nnac new`, as a float network."""
    import torch

    from nnac.imports import maps
    from nnac.imports.model import imported
    from nnac.language.check import check_file
    from nnac.train.saved import SavedModel

    if "file" not in cache:
        torch.save(_plain(), folder / "m.pt")
        imported(folder / "m.pt", maps.named("plain")).save(folder / "m.nnc")
        cache["file"] = checkpoint.load(folder / "m.nnc")
        (folder / "p.nnac").write_text(f'import "{Path("specs/targets/edge.nnac").absolute()}"\npolicy p {{\n'
                                       f'  model saved("{folder / "x.nnc"}")\n  target edge\n'
                                       '  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }'
                                       '\n}\n', "utf-8")
    file, tensors = cache["file"], dict(cache["file"].tensors)
    if r.random() < 0.2:
        name = r.choice(list(tensors))
        tensors[name] = r.choice([tensors[name].reshape(-1), tensors[name][:1], np.zeros(0, np.float32)])
    checkpoint.save(folder / "x.nnc", tensors, changed(file.metadata, r))
    if r.random() < 0.2:
        (folder / "x.nnc").write_bytes(flipped((folder / "x.nnc").read_bytes(), r))
    checked = check_file(folder / "p.nnac")
    assert checked.errors or checked.resolutions
    assert cli(["new", str(folder / "x.nnc")]) in (0, 1)
    SavedModel.load(folder / "x.nnc")


# ---------------------------------------------------------------------------------------- language models and hybrids

ARPA = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-0.5\t</s>
-99\t<s>\t-0.3
-0.7\ta\t-0.2
-0.9\tb

\\2-grams:
-0.2\t<s> a
-0.4\ta b

\\end\\
"""


@kind(800)
def arpa(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    from nnac.decode.ngram import automaton, read_arpa
    from nnac.speech.tokens import LETTERS

    words = ["ngram 9=1", "ngram 999999999=999999999", "\\3-grams:", "\\999999999999-grams:", "\\0-grams:", "nan",
             "inf", "-1e400", "1e300", "-0.5", "<s>", "</s>", "<unk>", "a", "zz", "\\end\\", "\\data\\", "9" * 5000,
             "\0", ""]
    lines = ARPA.split("\n")
    for _i in range(r.randint(1, 3)):
        at = r.randrange(len(lines))
        parts = lines[at].split("\t")
        parts[r.randrange(len(parts))] = r.choice(words)
        lines[at] = r.choice(["\t".join(parts), r.choice(words), lines[at] + "\n" + lines[at]])
    data = "\n".join(lines).encode()
    (folder / "x.arpa").write_bytes(data if r.random() < 0.7 else flipped(data, r))
    made = automaton(read_arpa(folder / "x.arpa", LETTERS))
    assert made.rows.shape == made.successors.shape
    assert 0 <= made.successors.min() <= made.successors.max() < len(made.rows)


@kind(300)
def tuning_results(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    """What `nnac tune-fusion` goes on from: a file of something else stays as it is."""
    from nnac.decode import tuning

    rows: list[Any] = [{"of": "this"}] + [{"point": {"fusion": "shallow", "weight": w, "less": 0.0, "bonus": 0.2},
                                           "errors": 3, "words": 9, "per_utterance": [1, 2]} for w in (0.1, 0.2)]
    at = r.randrange(3)
    rows[at] = r.choice([changed(rows[at], r), r.choice([v for v in VALUES if v is not ...])])
    lines = [r.choice(["[" * 100_000, "9" * 5000, "\0", "notes of mine"]) if r.random() < 0.05 else json.dumps(row)
             for row in rows[: r.randint(1, 3)]]
    (folder / "t.jsonl").write_text("\n".join(lines) + r.choice(["", "\n"]), "utf-8")
    for result in tuning.load(folder / "t.jsonl", "this").values():
        assert result.errors >= 0 and result.point.fusion in tuning.FUSIONS and math.isfinite(result.point.weight)
    assert json.loads(lines[0]) == {"of": "this"}, "a file of something else would be written over"


@kind(300)
def hybrid_files(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    """Decoding graphs and alignments, changed under a right checksum: what is taken can be searched."""
    from types import SimpleNamespace

    from nnac.hybrid import alignments, graph
    from nnac.hybrid.decoder import Decoder
    from nnac.hybrid.lexicon import Lexicon
    from nnac.hybrid.states import Inventory

    inventory = Inventory(Lexicon({"ab": (("A", "B"),), "b": (("B",),)}), [(1, 2, 0)])
    at = np.random.default_rng(r.randrange(2**32))
    if r.random() < 0.4:
        labels = alignments.Labels("c", np.array([3, 2], np.int64), at.integers(-1, 3, 5).astype(np.int16))
        alignments.Alignments(inventory, 2, {"train": labels}).save(folder / "x")
    else:
        arcs = np.array([[0, 1, 1, 1], [1, 2, 0, 0], [2, 2, 3, 0], [2, 3, 2, 2], [3, 0, 0, 0]], np.int32)
        graph.Graph("d", ("a", "b"), arcs, at.normal(0, 2, 5).astype(np.float32), np.array([3], np.int32),
                    np.zeros(1, np.float32)).save(folder / "x")
    file = checkpoint.load(folder / "x")
    tensors = dict(file.tensors)
    name = r.choice(list(tensors))
    value = tensors[name].copy()
    if value.size and r.random() < 0.7:
        value.flat[r.randrange(value.size)] = r.choice([-1, 0, 1, 2, 3, 100, 30_000])
    tensors[name] = r.choice([value, value, value[:1], value.astype(np.float64), value.astype(np.int64), value[None]])
    checkpoint.save(folder / "x", tensors, changed(file.metadata, r) if r.random() < 0.4 else file.metadata)
    if "arcs" not in tensors:
        made = alignments.load(folder / "x")
        assert all(isinstance(each, np.ndarray) for s in made.splits.values() for each in s.each())
        return
    found = graph.load(folder / "x")
    found.check(SimpleNamespace(digest="d", count=inventory.count))                  # type: ignore[arg-type]
    with contextlib.suppress(ImportError):
        import kaldi_decoder  # noqa: F401

        for count in (1, 2):
            Decoder(found)(at.normal(0, 1, (9, inventory.count)).astype(np.float32), count)


@kind(300)
def lists_of_words(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    """Lexicons, lists of tokens, images in .npz: read, or one line."""
    from nnac.hybrid.lexicon import read_lexicon
    from nnac.images import read_labelled
    from nnac.imports.model import read_tokens

    words = ["a 0", "b 1", "a", "", "\u2581the -3.5", "<blk> 0", "c 99999999999999", "d " + "9" * 5000, "\0", "\x1b[2J",
             "e nan", "WORD PH ON E", ";;; x", "X SIL", "x" * 100_000, "\r", "f\t1"]
    text = "\n".join(r.choice(words) for _ in range(r.randint(0, 5)))
    (folder / "w").write_bytes(text.encode() if r.random() < 0.8 else flipped(text.encode(), r))
    how = r.randrange(3)
    if how == 0:
        read_lexicon(folder / "w")
    elif how == 1:
        read_tokens(folder / "w", r.choice([0, -1, 3]))
    else:
        kinds = [np.int8, np.bool_, np.float32, np.uint64, "U3", np.complex64]
        values = {n: np.ones(r.choice([(2, 64), (2, 63), (2,), (0, 64), ()]), r.choice(kinds)) for n in ("images",
                                                                                                       "labels")}
        values["labels"] = r.choice([values["labels"], np.zeros(2, np.int64), np.array([-1, 1]), np.array([0, 64])])
        np.savez(folder / "i.npz", **values)
        read_labelled(str(folder / "i.npz"), 64)


@kind(60)
def cores(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    """`nnac rtl` of targets that say what they like."""
    text = cache.setdefault("text", Path("specs/targets/edge.nnac").read_text("utf-8"))
    words = ["0", "1", "3", "-1", "65536", "10000000000", "9" * 30, "0.5", "nan", "1e30", "64 KiB", "1 TiB", "1 MHz",
             "x"]
    lines = text.split("\n")
    numbers = [i for i, line in enumerate(lines) if any(c.isdigit() for c in line) and not line.startswith("#")]
    for i in r.sample(numbers, r.randint(1, 2)):
        lines[i] = re.sub(r"\d[\d_.]*( ?[KMGT]i?B)?", r.choice(words), lines[i], count=1)
    (folder / "t.nnac").write_text("\n".join(lines), "utf-8")
    assert cli(["rtl", "--target", str(folder / "t.nnac"), r.choice(["--ports", "--memories"])]) in (0, 1)


# ------------------------------------------------------------------------------------------------ outputs

@kind(200)
def outputs(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    """An output that meets another file: never destroyed unless it is a plain, writable file that nothing reads."""
    from nnac.files import FileError, atomic

    for f in folder.iterdir():
        f.unlink()
    path = folder / "x"
    before = os.urandom(r.randrange(50))
    how = r.choice(["plain", "absent", "link", "hard", "read-only", "fifo", "folder link", "loop", "dangling", "input",
                    "input link"])
    mode = r.choice([0o600, 0o644, 0o664, 0o755])
    target = folder / "target"
    if how in ("plain", "read-only", "input"):
        path.write_bytes(before)
        path.chmod(0o444 if how == "read-only" else mode)
    elif how in ("link", "hard", "input link"):
        target.write_bytes(before)
        target.chmod(mode)
        os.link(target, path) if how == "hard" else path.symlink_to("target")
    elif how in ("fifo",):
        os.mkfifo(path)
    elif how in ("folder link", "loop", "dangling"):
        path.symlink_to({"folder link": ".", "loop": "x", "dangling": "target"}[how])
    if how.startswith("input"):
        read = target if how == "input link" else path
        assert cli([r.choice(["compile", "asm"]), str(read), "--out", str(path)]) == 2 and read.read_bytes() == before
        return
    wrote, failed = os.urandom(70), r.random() < 0.3
    try:
        with atomic(path) as out:
            out.write(wrote)
            if failed:
                raise ZeroDivisionError
        assert how not in ("read-only", "fifo", "folder link", "loop")
        assert path.read_bytes() == wrote
        if how in ("plain", "link", "hard"):
            assert path.stat().st_mode & 0o777 == mode
        if how in ("link", "dangling"):
            assert path.is_symlink() and target.read_bytes() == wrote
        if how == "hard":
            assert target.read_bytes() == wrote
    except (FileError, OSError, ZeroDivisionError):
        assert failed or how in ("read-only", "fifo", "folder link", "loop")
        if how in ("plain", "link", "hard", "read-only"):
            assert path.read_bytes() == before
    assert not list(folder.glob("*.tmp"))


# not "/": all that a machine holds may be linted, and takes as long
NAMES = ["[red]x[/]", "x[bold].nnp", "a\nb", "x" * 300, "\x1b[2J", "pé", "\udcff", "-", " ", "..", ".", "/dev",
         "/dev/null", "/proc/self/mem", "~", "$HOME", "no/such/folder", "x\0y", "", "FIFO", "SOCKET", "FOLDER", "LOOP",
         "EMPTY", "TEXT", "DANGLING", "../odd_names/TEXT", "file:///etc/passwd", "%s%n", "{0}", "CON", "x" * 5000]
# words in capitals are files of the right kind, {} is an odd name
COMMANDS = [line.split() for line in """
    lint {}
    fmt --check {}
    explain {}
    show {}
    diff {} {}
    run {} --audio {}
    run PROGRAM --audio {}
    run PROGRAM --manifest {}
    run PROGRAM --tensors {}
    compile {} --out OUT
    compile CHECKPOINT --out {}
    profile {}
    profile PROGRAM --trace {}
    profile PROGRAM --picture {}
    disasm {}
    asm {} --out OUT
    compare CHECKPOINT {} --audio {}
    compare CHECKPOINT --audio {}
    latency PROGRAM --manifest {}
    sweep {}
    ngram --text {} --out OUT
    challenge --images {}
    rtl --target {} --out OUT
    train POLICY --float {} --corpus {} --out OUT
    train {} --float NETWORK --corpus {} --out OUT
    debug {}
    corpus --out {} --train 0
    baseline --corpus {} --out OUT
    baseline --text {} --steps 1 --out OUT
    tune-fusion PROGRAM --corpus {} --lm {} --out OUT
    import {} --as plain --out OUT
    import {} --map {} --out OUT
    import {} --as {} --tokens {} --out OUT --json
    import NETWORK --as nemo --out {}
    new {}
    new {} --target {} --out OUT
    new rnnt --name {}
    export {} --to onnx --out {}
    export CHECKPOINT --to safetensors --out {}
    align --corpus {} --out OUT
    align --corpus {} --network {} --lexicon {} --out {} --json
    graph {} --lm {} --out OUT
    graph NETWORK --lm {} --out {}
    pack {} --out OUT
    pack NETWORK --out {}
    ngram --tokens {} --text {} --out OUT
    ngram --tokens NETWORK --text {} --out {} --json
    run PROGRAM --audio {} --search beam --lm {} --lm-scale 0.3
    run PROGRAM --audio {} --graph {} --json
    latency PROGRAM {} --manifest {} --json --plane {}
    challenge --images {} --network {} --layers 1 --json
    train POLICY --images {} --out OUT
    train POLICY --float {} --tensors {} --steps 0 --out OUT --json
    sweep {} --list --float {} --corpus {}
    rtl --target {} --ports
""".strip().split("\n")]


@kind(700)
def odd_names(cache: dict, r: random.Random, folder: Path, small: Small) -> None:
    """Every command with names that are odd, or of things that are no files; it may refuse in its own words, or take
    them."""
    import socket

    here = os.getcwd()
    if "made" not in cache:
        os.mkfifo(folder / "FIFO")
        cache["made"] = socket.socket(socket.AF_UNIX)
        os.chdir(folder)
        cache["made"].bind("SOCKET")
        os.chdir(here)
        (folder / "FOLDER").mkdir()
        (folder / "LOOP").symlink_to("LOOP")
        (folder / "DANGLING").symlink_to("nothing")
        (folder / "EMPTY").write_bytes(b"")
        (folder / "TEXT").write_text("turn on the light\n")
    given = {"PROGRAM": small.program, "CHECKPOINT": small.checkpoint, "POLICY": small.policy, "NETWORK": small.network,
             "OUT": folder / "out"}
    words = [str(given.get(w, w)) if w != "{}" else r.choice(NAMES) for w in r.choice(COMMANDS)]
    before = small.program.read_bytes()
    os.chdir(folder)
    from nnac import files

    wait, files.PIPE_WAIT_S = files.PIPE_WAIT_S, 0.05
    try:
        with contextlib.suppress(SystemExit):
            cli(words)
    except (Exception, Hang) as error:
        raise AssertionError(f"{[w[:30] for w in words]}: {type(error).__name__}: {error}") from error
    finally:
        files.PIPE_WAIT_S = wait
        os.chdir(here)
    assert small.program.read_bytes() == before


# ------------------------------------------------------------------------------------------------ the process

def _run(words: list[str], shell: str = "", flags: tuple[str, ...] = (),
         env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, *flags, "-m", "nnac", *words]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command] if shell else command
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, env=os.environ |
                          (env or {}))


@kind(30)
def streams(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    (folder / "pé[bold].nnac").write_text('import "pé[bold].nnac"\npolicy p { wieghts }\n', "utf-8")
    words = r.choice([["isa"], ["lint", str(folder / "pé[bold].nnac")],
                      ["lint", "--format", "sarif", str(folder / "pé[bold].nnac")],
                      ["explain", "--settings"], ["--help"], ["show", str(small.program)],
                      ["disasm", str(small.program)]])
    done = _run(words, r.choice(["", ">&-", "2>&-", "<&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full", "| true",
                                 "| head -c 10"]),
                r.choice([(), (), ("-O",), ("-OO",)]),
                r.choice([{}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
                          {"PYTHONIOENCODING": "utf-16"},
                          {"HOME": "/nonexistent"}]))
    assert "Traceback" not in done.stderr + done.stdout and "Exception ignored" not in done.stderr


@kind(25)
def interrupts(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    (folder / "x.wav").write_bytes(_wav(random.Random(1))[0])
    words = r.choice([["isa"], ["run", str(small.program), "--audio", str(folder / "x.wav")], ["lint", "specs"],
                      ["profile", str(small.program)]])
    # the interpreter's own start is not ours: wait for the package
    code = "import sys; from nnac.__main__ import main; sys.stdout.write('!'); sys.stdout.flush(); sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stdout is not None and process.stdout.read(1) == "!"
    time.sleep(0.03 + r.random() * 1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if err.startswith('Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nKeyboardInterrupt'):
        return                                     # a loaded machine has not begun with `main` by then
    assert "Traceback" not in err and "Exception ignored" not in err, err[-600:]


@kind(60)
def numbers(_: Any, r: random.Random, folder: Path, small: Small) -> None:
    value = r.choice(["-1", "1e3", "9" * 30, "9" * 5000, "nan", "inf", "", " ", "0x10", "1_000", "٣", "1.5", "-0"])
    words = r.choice([["corpus", "--out", str(folder / "c"), "--processes", "0", "--seed"],
                      ["baseline", "--corpus", "c", "--out", "o", "--cells"],
                      ["train", "p", "--float", "f", "--corpus", "c", "--out", "o", "--learning-rate"],
                      ["run", "p", "--audio", "a", "--batch"],
                      ["sweep", "e", "--jobs"], ["corpus", "--out", str(folder / "c"), "--processes", "0", "--train"]])
    with contextlib.suppress(SystemExit):
        cli([*words, value])


# ------------------------------------------------------------------------------------------------ all of it

class Hang(BaseException):
    pass


def tried(name: str, count: int, seed: int, folder: Path, small: Small) -> int:
    """Try ``count`` cases of a kind; how many were bad."""
    one, bad, cache = KINDS[name][1], 0, {}
    room = folder / name
    room.mkdir()

    def late(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    for i in range(count):
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))          # others' work is no hang of ours
        signal.setitimer(signal.ITIMER_REAL, busy * (SLOW_S if KINDS[name][0] > 60 else 130.0))
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                one(cache, random.Random(f"{seed} {name} {i}"), room, small)
        except (UserError, DiagnosticError) as error:
            if not str(error).strip():
                bad += 1
        except (Exception, Hang) as error:
            bad += 1
            if bad <= 3:
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"{name} {i} (seed {seed}): {type(error).__name__}: {str(error)[:300]}  at "
                      f"{where.filename}:{where.lineno}", file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return bad


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    p.add_argument("--share", type=float, default=1.0, help="of the cases of each kind (1)")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args(arguments)
    begun, out = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        small = make(Path(folder) / "small")
        for name in args.kinds or KINDS:
            count = max(1, round(KINDS[name][0] * args.share))
            bad = tried(name, count, args.seed, Path(folder), small)
            out[name] = {"tried": count, "bad": bad}
            print(f"{name:<22} {count:>6} tried {bad:>4} bad", flush=True)
    total = {k: sum(v[k] for v in out.values()) for k in ("tried", "bad")}
    print(json.dumps({"kinds": out, **total, "seed": args.seed, "wall_s": round(time.monotonic() - begun, 1)}))
    return 1 if total["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
