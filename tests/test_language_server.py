"""The language server, asked by a real client over stdio; and the session under it, without any protocol."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from nnac.language.editor import MOST_DIAGNOSTICS, Session

lsp = pytest.importorskip("lsprotocol.types")
pytest.importorskip("pygls")

TEXT = '''import "targets/edge.nnac"

policy p {
  model   rnnt(size="small")
  target  edge
  let     bits = 5
  let     long = bits * 1k steps
  training { steps long }

  layers ** {
    weights      int8 per_channel
    activations  int8 percentile(99.99)
  }
  layers encoder.lstm[0].{input, recurrent} {
    weights  gq(bits, space=mu_law(255))
  }
}
'''


# -- the session

@pytest.fixture
def session(tmp_path):
    s = Session()
    path = tmp_path / "p.nnac"
    assert s.change(path, TEXT) == []
    return s, path


def offset(mark: str, text: str = TEXT, shift: int = 0) -> int:
    return text.index(mark) + shift


def complete(s: Session, path: Path, before: str, after: str = "") -> set[str]:
    """Completions at the end of ``before``, put in place of the last rule."""
    text = TEXT[:TEXT.index("  layers encoder.lstm[0]")] + before
    s.change(path, text + after)
    return {i.text for i in s.complete(path, len(text))}


@pytest.mark.parametrize("before,some,none", [
    ("  ", {"layers", "let", "budget", "training"}, {"weights"}),
    ("  layers ", {"encoder", "prediction", "joint", "**"}, {"lstm[*]", "weights"}),
    ("  layers encoder.", {"lstm[*]", "lstm[0]", "lstm[2]", "norm[*]", "reduce"}, {"encoder", "input"}),
    ("  layers encoder.ls", {"lstm[*]", "lstm[1]"}, {"input"}),
    ("  layers encoder.lstm[*].", {"input", "recurrent"}, {"gate", "lstm[0]"}),
    ("  layers encoder.lstm[0].input.gate.", {"i", "f", "g", "o"}, {"input"}),
    ("  layers encoder.lstm[0].{input, ", {"recurrent"}, {"encoder"}),
    ("  layers joint.output, encoder.", {"lstm[*]"}, {"joint"}),
    ("  layers ** {\n    ", {"weights", "cell", "sparsity", "place"}, {"layers", "int8"}),
    ("  layers ** {\n    weights ", {"int8", "per_channel", "gq", "lloyd_max"}, {"pact", "weights", "acc32"}),
    ("  layers ** {\n    weights int8 ", {"per_channel", "lsq"}, {"int4"}),
    ("  layers ** { weights gq(", {"bits=", "space=", "anneal=", "bits", "long"}, {"gq", "int8"}),
    ("  layers ** { weights gq(5, space=", {"mu_law", "flat"}, {"bits="}),
    ("  layers ** { weights gq(5, snap=", {"int8", "int16"}, {"mu_law"}),
    ("  layers ** { weights gq(5, space=mu_law(", {"mu="}, {"bits="}),
    ("  layers ** {\n    place ", {"nna", "cpu"}, {"int8"}),
    ("  layers ** {\n    cell int16 ", {"fraction", "auto"}, {"int8"}),
    ("  layers ** {\n    sparsity csp(75%, from=4k ", {"steps", "epochs", "%"}, {"to="}),
    ("  layers ** { regularise ", {"mracos", "acosr", "none"}, {"gq"}),
    ("  model ", {"rnnt"}, {"edge"}),
    ("  model rnnt(", {"size=", "cells=", "layers="}, {"rnnt"}),
    ("  target ", {"edge"}, {"rnnt"}),
    ("  budget { ", {"weights", "latency", "sram"}, {"cell"}),
    ("  budget { weights <= 4 ", {"MiB", "KiB"}, {"weights"}),
    ("  decode { fusion ", {"density_ratio", "none"}, {"beam"}),
    ("  decode { fusion density_ratio(0.3, ", {"target=", "source=", "less="}, {"beam=", "shallow"}),
    ("  decode { fusion shallow(target=", set(), {"less=", "weight="}),
    ("  training { ", {"steps", "batch", "learning_rate"}, {"weights"}),
    ("}\n\n", {"policy", "import", "target"}, {"layers"}),
    ("}\npolicy q extends ", {"p"}, {"edge"}),
    ("}\ntarget t extends ", {"edge"}, {"p"}),
    ("}\ntarget t {\n  ", {"clock", "dram", "multiply"}, {"weights"}),
    ("}\ntarget t {\n  dram bandwidth(1 GB/s) ", {"latency", "burst"}, {"bandwidth", "clock"}),
    ("}\ntarget t {\n  codecs raw ", {"packed", "codebook"}, {"raw"}),
])
def test_completion_offers_what_can_stand_there(session, before, some, none):
    offered = complete(*session, before)
    assert offered >= some and not offered & none, sorted(offered)


def test_completion_of_files(session, tmp_path):
    (tmp_path / "other.nnac").write_text("")
    s, path = session
    (tmp_path / "home-lm.nnc").touch()
    assert complete(s, path, "  decode { fusion shallow(target=") == {'"home-lm.nnc"'}
    s.change(path, 'import "')
    assert {i.text for i in s.complete(path, 8)} >= {"other.nnac", "targets/edge.nnac", "targets/tiny.nnac"}


@pytest.mark.parametrize("mark,shift,words", [
    ("weights      int8", 1, "how weights are held"), ("percentile", 3, "percentile of |x|"), ("gq(bits", 1, "mu-law"),
    ("space=", 1, "space in which the centroids"), ("mu_law(255", 2, "curvature"), ("bits, space", 1, "bits = 5"),
                                              ("long }", 1, "5k steps"),
    ("encoder.lstm[0]", 3, "encoder.lstm[0].input"), ("encoder.lstm[0]", 3, "wins"), ("steps\n", 1, "steps"),
                                              ("edge\n  let", 1, "bandwidth"),
    ("rnnt(size", 1, "weights,")])
def test_hover_says_what_is_known(session, mark, shift, words):
    s, path = session
    found = s.hover(path, offset(mark, shift=shift))
    assert found is not None and words in found[0], found


def test_definition(session, tmp_path):
    s, path = session
    where, span = s.definition(path, offset("bits, space", shift=2))
    assert where == path and span.start == offset("bits = 5") and span.text == "bits"
    assert s.definition(path, offset("bits * 1k"))[1].start == offset("bits = 5")
    where, span = s.definition(path, offset("edge\n  let"))
    assert where.name == "edge.nnac" and span.text == "edge"
    assert s.definition(path, offset("targets/edge"))[0].name == "edge.nnac"
    assert s.definition(path, offset("int8 per_channel")) is None


def test_rename_changes_every_use_and_nothing_else(session):
    s, path = session
    edits = s.rename(path, offset("bits, space"), "width")
    text = TEXT
    for e in sorted(edits[path], key=lambda e: -e.span.start):
        text = text[:e.span.start] + e.text + text[e.span.end:]
    assert text == TEXT.replace("let     bits", "let     width").replace("= bits *", "= width *").replace("gq(bits,",
        "gq(width,")
    assert s.change(path, text) == []
    for bad in ("", "1x", "a b", "true", "long"):
        assert isinstance(s.rename(path, offset("width, space", text), bad), str)
    assert isinstance(s.rename(path, offset("weights", text), "x"), str)


def test_rename_reaches_policies_that_extend(tmp_path):
    s = Session()
    base, top = tmp_path / "base.nnac", tmp_path / "top.nnac"
    base.write_text(TEXT)
    text = 'import "base.nnac"\npolicy q extends p {\n  let bits = 4\n  layers joint.** { weights gq(bits) }\n}\n'
    assert s.change(top, text) == []
    edits = s.rename(top, text.index("bits) }"), "width")
    assert len(edits[top]) == 2 and len(edits[base]) == 3


def test_mistakes_in_imported_files_are_shown_at_the_import(tmp_path):
    (tmp_path / "a.nnac").write_text("target t { clok 1 Hz }\n")
    found = Session().change(tmp_path / "b.nnac", 'import "a.nnac"\npolicy p {\n  model rnnt\n  target t\n}\n')
    assert [(d.code, d.span.start) for d in found] == [("unknown-field", 7)]


def test_a_session_says_the_same_as_a_fresh_check(session):
    from benchmarks.bench_language import policy
    from nnac.language.check import check_text

    s, path = session
    text = policy(60)
    s.change(path, text)
    for at in [i for i, c in enumerate(text) if c.isdigit()][::97]:
        text = text[:at] + "4" + text[at + 1:]
        s.change(path, text)
        fresh = check_text(text, str(path))
        assert [(d.code, d.message, d.span.start) for d in s.checked[path].diagnostics] == [
            (d.code, d.message, d.span.start) for d in fresh.diagnostics][:len(s.checked[path].diagnostics)]
        assert s.checked[path].resolutions[0].plan == fresh.resolutions[0].plan


def test_an_editor_is_not_flooded(session):
    s, path = session
    many = TEXT.replace("  layers **", "  layers joint.** { weihgts int8 }\n" * 999 + "  layers **", 1)
    assert len(s.change(path, many)) == MOST_DIAGNOSTICS


# -- the protocol

async def converse(folder: Path) -> None:
    from pygls.lsp.client import LanguageClient

    client = LanguageClient("test", "1")
    arrived: asyncio.Queue = asyncio.Queue()
    client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: arrived.put_nowait(params))
    client.feature(lsp.WINDOW_SHOW_MESSAGE)(lambda params: None)
    await client.start_io(sys.executable, "-m", "nnac", "lsp", env=os.environ | {"PYTHONPATH": "."})
    answer = await client.initialize_async(lsp.InitializeParams(capabilities=lsp.ClientCapabilities()))
    can = answer.capabilities
    assert (can.completion_provider and can.hover_provider and can.definition_provider and can.rename_provider
            and can.document_formatting_provider)
    client.initialized(lsp.InitializedParams())

    uri = (folder / "p.nnac").as_uri()
    broken = "# naïve 😀 " + TEXT.replace("int8 per_channel", "int8 per_chanel")
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "nnac", 1, broken)))
    first = await asyncio.wait_for(arrived.get(), 60)
    # the import stands in the comment now
    assert [d.code for d in first.diagnostics] == ["unknown-target", "unknown-word"]
    word = first.diagnostics[1].range
    assert (word.start.line, word.start.character, word.end.character) == (10, 22, 32)

    here = lsp.TextDocumentIdentifier(uri)
    mends = await client.text_document_code_action_async(lsp.CodeActionParams(here, word, lsp.CodeActionContext([])))
    assert mends[0].edit.changes[uri][0].new_text == "per_channel"

    async def change(version, start, end, text):
        client.text_document_did_change(lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(version,
            uri), [
            lsp.TextDocumentContentChangePartial(range=lsp.Range(lsp.Position(*start), lsp.Position(*end)),
                                                 text=text)]))
        return (await asyncio.wait_for(arrived.get(), 60)).diagnostics or []

    assert [d.code for d in await change(2, (10, 22), (10, 32), "per_channel")] == ["unknown-target"]
    # the smiley is two units of UTF-16: the comment's text is 10 units long
    assert not await change(3, (0, 0), (0, 11), "")

    items = await client.text_document_completion_async(lsp.CompletionParams(here, lsp.Position(13, 17)))
    assert "lstm[*]" in {i.label for i in items.items}
    hover = await client.text_document_hover_async(lsp.HoverParams(here, lsp.Position(14, 14)))
    assert "mu-law" in hover.contents.value
    place = await client.text_document_definition_async(lsp.DefinitionParams(here, lsp.Position(14, 17)))
    assert place.uri == uri and place.range.start == lsp.Position(5, 10)
    edit = await client.text_document_rename_async(lsp.RenameParams(here, lsp.Position(5, 11), "width"))
    assert len(edit.changes[uri]) == 3
    assert await client.text_document_rename_async(lsp.RenameParams(here, lsp.Position(10, 5), "width")) is None
    assert await client.text_document_formatting_async(lsp.DocumentFormattingParams(here,
        lsp.FormattingOptions(2, True))) in ([], None, ())
    await change(4, (4, 2), (4, 2), "     ")
    [whole] = await client.text_document_formatting_async(lsp.DocumentFormattingParams(here,
        lsp.FormattingOptions(2, True)))
    assert whole.new_text == TEXT
    client.text_document_did_close(lsp.DidCloseTextDocumentParams(here))
    assert not (await asyncio.wait_for(arrived.get(), 60)).diagnostics
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()


def test_a_real_client_over_stdio(tmp_path):
    asyncio.run(asyncio.wait_for(converse(tmp_path), 120))


# -- requests beyond sense

ODD = [{}, {"textDocument": {"uri": "file:///tmp/none.nnac"}},
       {"textDocument": 3, "position": {"line": 0, "character": 0}}, None, [], "x",
       *({"textDocument": {"uri": uri}, "position": position}
         for uri in ("file:///tmp/none.nnac", "", "\0", "untitled:x", 7)
         for position in ({"line": -1, "character": -1}, {"line": 10**9, "character": 10**9}, {"line": "a"},
                          {"line": 1.5, "character": None}, 3))]
METHODS = ["textDocument/completion", "textDocument/hover", "textDocument/definition", "textDocument/rename",
           "textDocument/formatting",
           "textDocument/codeAction", "textDocument/nothing", "", "workspace/symbol"]


def test_every_request_is_answered(tmp_path):
    import json
    import subprocess

    def framed(message):
        body = json.dumps(message).encode()
        return b"Content-Length: %d\r\n\r\n" % len(body) + body

    asked = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p}
             for i, (m, p) in enumerate((m, p) for m in METHODS for p in ODD)]
    asked += [{"jsonrpc": "2.0", "id": f"n{i}", "method": m} for i, m in enumerate(METHODS)]
    asked += [{"jsonrpc": "1.0", "id": "old", "method": "textDocument/hover", "params": {}}]
    first = [{"jsonrpc": "2.0", "id": "init", "method": "initialize",
              "params": {"processId": None, "rootUri": None, "capabilities": {}}},
             {"jsonrpc": "2.0", "method": "initialized", "params": {}},
             {"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": 5},
             {"jsonrpc": "2.0", "method": "nothing"}]
    last = [{"jsonrpc": "2.0", "id": "bye", "method": "shutdown"},
            {"jsonrpc": "2.0", "id": "late", "method": "textDocument/hover", "params": {}},
            {"jsonrpc": "2.0", "method": "exit"}]
    said = b"".join(map(framed, [*first, *asked, *last]))
    done = subprocess.run([sys.executable, "-m", "nnac", "lsp"], input=said, capture_output=True, timeout=120)
    answered = set()
    at = 0
    while (head := done.stdout.find(b"Content-Length: ", at)) >= 0:
        start = done.stdout.index(b"\r\n\r\n", head) + 4
        at = start + int(done.stdout[head + 16:done.stdout.index(b"\r\n", head)])
        message = json.loads(done.stdout[start:at])
        if "method" not in message:
            answered.add(message["id"])
    assert {m["id"] for m in [*first[:1], *asked, *last[:2]]} <= answered
