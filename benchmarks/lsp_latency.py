"""How long an edit of a large policy takes in the language server: its own work, and seen by a client over stdio."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def places(text: str, count: int, seed: int = 0) -> list[int]:
    """Where a digit stands in the rules: typing there changes one number."""
    rng = random.Random(seed)
    digits = [i for i in range(len(text) // 10, len(text)) if text[i].isdigit() and text[i - 1] in "(="]
    return [rng.choice(digits) for _ in range(count)]


def edits(text: str, count: int) -> float:
    """Median seconds from a changed text to its diagnostics."""
    from nnac.language.editor import Session

    session, path = Session(), ROOT / "specs" / "many.nnac"
    session.change(path, text)
    seconds = []
    for at in places(text, count):
        text = text[:at] + ("3" if text[at] != "3" else "4") + text[at + 1:]
        t = time.perf_counter()
        session.change(path, text)
        seconds.append(time.perf_counter() - t)
    return statistics.median(seconds)


def round_trips(text: str, count: int) -> float:
    """Median seconds from sending an edit to receiving the diagnostics, over stdio."""
    return asyncio.run(_round_trips(text, count))


async def _round_trips(text: str, count: int) -> float:
    from lsprotocol import types as lsp
    from pygls.lsp.client import LanguageClient

    client = LanguageClient("bench", "1")
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: arrived.put_nowait(params))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.nnac"
        await client.start_io(sys.executable, "-m", "nnac", "lsp", env=os.environ | {"PYTHONPATH": str(ROOT)})
        await client.initialize_async(lsp.InitializeParams(capabilities=lsp.ClientCapabilities(), process_id=None,
                                                           root_uri=None))
        client.initialized(lsp.InitializedParams())
        client.text_document_did_open(lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(path.as_uri(), "nnac", 1,
            text)))
        await asyncio.wait_for(arrived.get(), 60)
        starts = [0]
        for i, c in enumerate(text):
            if c == "\n":
                starts.append(i + 1)
        seconds = []
        for version, at in enumerate(places(text, count), 2):
            line = next(n for n in range(len(starts) - 1, -1, -1) if starts[n] <= at)
            place = lsp.Range(lsp.Position(line, at - starts[line]), lsp.Position(line, at - starts[line] + 1))
            change = lsp.TextDocumentContentChangePartial(range=place, text="3" if version % 2 else "4")
            t = time.perf_counter()
            client.text_document_did_change(lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(version,
                path.as_uri()), [change]))
            await asyncio.wait_for(arrived.get(), 60)
            seconds.append(time.perf_counter() - t)
        await client.shutdown_async(None)
        client.exit(None)
        await client.stop()
    return statistics.median(seconds)
