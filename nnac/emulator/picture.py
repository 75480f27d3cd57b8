"""One run of an entry as a picture: a row for each unit, time to the right, a colour for each layer.  SVG, made of
plain text.  More layers than there are colours share those of what they belong to; where numbered parts of the model
begin is marked.

A column of the picture stands for many cycles; a bar is as high as the share of them in which the unit worked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np

from nnac.emulator.analysis import RESOURCES, WORK, Analysis

PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#882255", "#44aa99", "#999933", "#332288",
           "#ddaa33", "#117733")
WAITS, IDLE = "#e4e4e4", "#ffffff"
LEFT, ROW, GAP, TOP = 92, 26, 8, 46
ROWS = {"DRAM": "DRAM bus", "DECODER": "decoder", "MV": "MV", "VX": "VX", "DA": "DA"}


def svg(run: Analysis, first: int = 0, end: int | None = None, width: int = 1100) -> str:
    """The picture of cycles first … end-1, ``width`` columns wide."""
    end = min(end or run.entry.timing.cycles, run.entry.timing.cycles)
    if not 0 <= first < end:
        raise ValueError(f"{run.entry.name} has cycles 0 … {run.entry.timing.cycles - 1}, not {first} … {end}")
    layers = list(dict.fromkeys(layer for layer, _ in run.entry.origins if layer))
    groups = groups_of(layers)
    names = list(dict.fromkeys(groups.values()))
    colours = {layer: PALETTE[names.index(groups[layer]) % len(PALETTE)] for layer in layers}
    shown = [r for r in RESOURCES if r in ROWS]
    shown.sort(key=list(ROWS).index)
    legend = -(-len(names) // 5)
    height = TOP + len(shown) * (ROW + GAP) + 34 + 18 * legend
    cycles = end - first
    ms = 1e3 * run.entry.timing.cycles / run.config.clock
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + width + 70}" height="{height}" '
           f'font-family="sans-serif" font-size="12">',
           f'<rect width="100%" height="100%" fill="{IDLE}"/>',
           f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(run.entry.name)} on '
           f'{escape(run.config.name)}: '
           f"{run.entry.timing.cycles:,} cycles, {ms:.3f} ms, {run.roofline.ratio:.3f} x roofline</text>"]
    for row, resource in enumerate(shown):
        y = TOP + row * (ROW + GAP)
        out.append(f'<text x="8" y="{y + 17}">{ROWS[resource]}</text><text x="{LEFT + width + 8}" y="{y + 17}" '
                   f'fill="#555">'
                   f"{run.utilisation[resource]:.1%}</text>")
        out.append(f'<rect x="{LEFT}" y="{y}" width="{width}" height="{ROW}" fill="none" stroke="#bbb" '
                   f'stroke-width="0.5"/>')
        out += _row(run, resource, first, cycles, width, y, colours)
    y = TOP + len(shown) * (ROW + GAP) + 8
    for name, at in _begins(run, layers).items() if names != layers else ():
        if first <= at < end:
            x = LEFT + (at - first) * width // cycles
            out.append(f'<path d="M{x} {TOP - 14}V{y - 10}" stroke="#555" stroke-dasharray="2 3" fill="none"/>'
                       f'<text x="{x + 3}" y="{TOP - 6}" fill="#555" font-size="10">{escape(name)}</text>')
    for k in range(6):
        at = first + cycles * k // 5
        out.append(f'<text x="{LEFT + width * k // 5}" y="{y}" fill="#555" text-anchor="middle">{at:,}</text>')
    for k, name in enumerate(names):
        x, line = LEFT + k % 5 * (width // 5), y + 18 * (k // 5) + 12
        out.append(f'<rect x="{x}" y="{line}" width="12" height="12" fill="{PALETTE[k % len(PALETTE)]}"/><text '
                   f'x="{x + 17}" y="{line + 10}">{escape(name)}</text>')
    out.append(f'<rect x="8" y="{y + 12}" width="12" height="12" fill="{WAITS}" stroke="#bbb"/><text x="25" '
               f'y="{y + 22}">waits</text></svg>')
    return "\n".join(out) + "\n"


def groups_of(layers: Sequence[str]) -> dict[str, str]:
    """What each layer is coloured as: itself, where there are colours for all; else the longest beginning of its path,
    without numbers, of which there are not too many."""
    if len(layers) <= len(PALETTE):
        return {layer: layer for layer in layers}
    parts = {layer: re.sub(r"\[\d+\]", "", layer).split(".") for layer in layers}
    for depth in range(max(map(len, parts.values())), 0, -1):
        found = {layer: ".".join(path[:depth]) for layer, path in parts.items()}
        if len(set(found.values())) <= len(PALETTE):
            break
    return found


def _begins(run: Analysis, layers: Sequence[str]) -> dict[str, int]:
    """The cycle in which each numbered part (``block[4]``) is first worked on by the multipliers or the vector unit."""
    found: dict[str, int] = {}
    for resource in ("MV", "VX"):
        for span in run.spans(resource):
            part = re.match(r"(?:.*?\.)?([^.\[]+\[\d+\])", run.entry.origins[span.instruction][0])
            if span.reason == WORK and part:
                found[part[1]] = min(found.get(part[1], span.first), span.first)
    return found


def _row(run: Analysis, resource: str, first: int, cycles: int, width: int, y: int,
         colours: dict[str, str]) -> list[str]:
    """Bars of one row: in each column as high as the share of its cycles that worked, in the colour of the layer that
    worked most, before grey where the unit waited; equal neighbours joined."""
    palette = [IDLE, WAITS, *dict.fromkeys(colours.values()), "#888888"]
    held = np.zeros((len(palette), width + 1))
    for span in run.spans(resource):
        a, b = (max(0.0, min(float(width), (c - first) * width / cycles)) for c in (span.first, span.end))
        if b <= a:
            continue
        if span.reason in (WORK, "DW", "DA"):
            colour = palette.index(colours.get(run.entry.origins[span.instruction][0], "#888888"))
        else:
            colour = 1 if " from " in span.reason or span.reason in ("ring full", "latency") else 0
        _fill(held[colour], a, b)
    held = held[:, :width]
    high = np.ceil(held[2:].sum(0).clip(0, 1) * ROW - 1e-6).astype(int)          # a little work still shows
    wait = np.minimum(ROW, high + np.rint(held[1] * ROW).astype(int))
    return _bars(wait, np.ones(width, int), palette, y) + _bars(high, held[2:].argmax(0) + 2, palette, y)


def _bars(high: np.ndarray, colour: np.ndarray, palette: list[str], y: int) -> list[str]:
    cuts = [0, *(np.flatnonzero((np.diff(high) != 0) | (np.diff(colour) != 0)) + 1).tolist(), len(high)]
    return [f'<rect x="{LEFT + a}" y="{y + ROW - high[a]}" width="{b - a}" height="{high[a]}" '
            f'fill="{palette[colour[a]]}"/>'
            for a, b in pairwise(cuts) if high[a]]


def _fill(column: np.ndarray, a: float, b: float) -> None:
    """Add the length of [a, b) to the columns that it covers."""
    first, last = int(a), int(b)
    if first == last:
        column[first] += b - a
        return
    column[first] += first + 1 - a
    column[first + 1: last] += 1
    column[last] += b - last
