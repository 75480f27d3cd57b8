"""One utterance as a picture: its audio above, what host and accelerator do below, time to the right.  SVG, made of
plain text."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nnac.latency.simulate import UNITS, Span, Timeline

COLOURS = {"host": "#999933", "encoder": "#4477aa", "prediction": "#ee6677", "language": "#aa3377", "joint": "#228833"}
LEFT, ROW, GAP, TOP, AUDIO = 92, 22, 7, 46, 64


def svg(title: str, samples: NDArray, rate: int, waiting_s: float, run: Timeline, width: int = 1100) -> str:
    """samples  float in -1..1, as heard      waiting_s  how much of it is there when the engine is woken      run
    with its spans kept"""
    first, last = min(0.0, -waiting_s), max(run.done, len(samples) / rate - waiting_s)
    scale = width / (last - first)

    def x(seconds: float) -> float:
        return LEFT + (seconds - first) * scale

    shown = [u for u in UNITS if any(s.unit == u for s in run.spans)]
    height = TOP + AUDIO + GAP + len(shown) * (ROW + GAP) + 52
    bottom = height - 46
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + width + 24}" height="{height}" '
           'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="#ffffff"/>',
           f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
           f'<text x="8" y="{TOP + AUDIO // 2 + 4}">audio</text>', _wave(samples, rate, waiting_s, x, scale)]
    for row, unit in enumerate(shown):
        y = TOP + AUDIO + GAP + row * (ROW + GAP)
        out.append(f'<text x="8" y="{y + 15}">{unit}</text><rect x="{LEFT}" y="{y}" width="{width}" height="{ROW}" '
                   'fill="none" stroke="#bbb" stroke-width="0.5"/>')
        out += _bars([s for s in run.spans if s.unit == unit], y, x, COLOURS[unit])
    marks = [(0.0, "woken", "#555555")] if waiting_s else []
    marks += [(run.speech_end, "last word ends", "#332288"), (run.closed, "endpoint", "#882255"),
              (run.done, "text", "#117733")]
    for place, (at, name, colour) in enumerate(marks):
        end, y = "start" if x(at) < LEFT + 160 else "end", bottom + 12 + 11 * (place % 3)
        out.append(f'<line x1="{x(at):.1f}" y1="{TOP}" x2="{x(at):.1f}" y2="{bottom}" stroke="{colour}" '
                   f'stroke-dasharray="3 2"/><text x="{x(at):.1f}" y="{y}" fill="{colour}" text-anchor="{end}" '
                   f'font-size="11">{name} {1e3 * at:.1f} ms </text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _wave(samples: NDArray, rate: int, waiting_s: float, x: Callable[[float], float], scale: float) -> str:
    """The waveform's envelope, a column a pixel."""
    columns = max(1, int(len(samples) / rate * scale))
    edges = np.linspace(0, len(samples), columns + 1).astype(int).tolist()
    size = np.abs(samples) / max(1e-6, float(np.abs(samples).max(initial=0)))
    middle, half = TOP + AUDIO / 2, AUDIO / 2 - 1
    tops = [(a, half * float(size[a:max(a + 1, b)].max(initial=0))) for a, b in pairwise(edges)]
    up = [f"{x(a / rate - waiting_s):.1f},{middle - h:.1f}" for a, h in tops]
    down = [f"{x(a / rate - waiting_s):.1f},{middle + h:.1f}" for a, h in reversed(tops)]
    return f'<polygon points="{" ".join(up + down)}" fill="#888888"/>'


def _bars(spans: list[Span], y: int, x: Callable[[float], float], colour: str) -> list[str]:
    """Bars at their places; neighbours less than half a pixel apart are one, and none is too thin to be seen."""
    joined: list[list[float]] = []
    for s in spans:
        a, b = x(s.start), x(s.end)
        if joined and a - joined[-1][1] < 0.5:
            joined[-1][1] = b
        else:
            joined.append([a, b])
    return [f'<rect x="{a:.2f}" y="{y}" width="{max(0.35, b - a):.2f}" height="{ROW}" fill="{colour}"/>'
            for a, b in joined]
