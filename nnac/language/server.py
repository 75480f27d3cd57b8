"""The language server: ``editor.Session`` spoken in the Language Server Protocol, over stdio.  Needs pygls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException, JsonRpcInvalidRequest
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol

from nnac import __version__
from nnac.diagnostics import Diagnostic, Source, Span
from nnac.language.editor import Session

SEVERITY = {"error": lsp.DiagnosticSeverity.Error, "warning": lsp.DiagnosticSeverity.Warning,
            "note": lsp.DiagnosticSeverity.Information}
KINDS = {"keyword": lsp.CompletionItemKind.Keyword, "setting": lsp.CompletionItemKind.Property,
         "layer": lsp.CompletionItemKind.Module,
         "method": lsp.CompletionItemKind.Function, "argument": lsp.CompletionItemKind.Field,
         "unit": lsp.CompletionItemKind.Unit,
         "parameter": lsp.CompletionItemKind.Variable, "file": lsp.CompletionItemKind.File,
         "target": lsp.CompletionItemKind.Class,
         "policy": lsp.CompletionItemKind.Class, "model": lsp.CompletionItemKind.Class,
         "field": lsp.CompletionItemKind.Property}


def path_of(uri: str) -> Path:
    """The file of a ``file:`` URI; other schemes (an unsaved buffer) become a name in the current folder."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        return Path.cwd() / unquote(parsed.path).replace("/", "_")
    # not `resolve`, which raises at loops of links
    return Path(os.path.realpath(unquote(parsed.path).replace("\0", "")))


def offset_of(source: Source, position: lsp.Position) -> int:
    """The offset of a position whose columns count UTF-16 units; the nearest one that there is."""
    if position.line < 0:
        return 0
    if position.line >= len(source.line_starts):
        return len(source.text)
    start = source.line_starts[position.line]
    line = source.text[start:source.line_starts[position.line +
        1]] if position.line + 1 < len(source.line_starts) else source.text[start:]
    if line.isascii():
        return start + min(position.character, len(line))
    units = 0
    for i, c in enumerate(line):
        if units >= position.character:
            return start + i
        units += 1 + (ord(c) > 0xFFFF)
    return start + len(line)


def position_of(source: Source, offset: int) -> lsp.Position:
    line, column = source.position(min(offset, len(source.text)))
    start = source.line_starts[line - 1]
    before = source.text[start:start + column - 1]
    return lsp.Position(line - 1, column - 1 if before.isascii() else sum(1 + (ord(c) > 0xFFFF) for c in before))


def range_of(span: Span) -> lsp.Range:
    return lsp.Range(position_of(span.source, span.start), position_of(span.source, span.end))


def diagnostic(d: Diagnostic, uri: str) -> lsp.Diagnostic:
    words = "\n".join([d.message, *(label.text for label in d.labels[:1] if label.text),
                       *(f"help: {h}" for h in d.help)])
    related = [lsp.DiagnosticRelatedInformation(lsp.Location(uri, range_of(label.span)), label.text or "here")
               for label in d.labels[1:]
               if d.span is not None and label.span.source is d.span.source]
    place = range_of(d.span) if d.span is not None else lsp.Range(lsp.Position(0, 0), lsp.Position(0, 1))
    tags = [lsp.DiagnosticTag.Unnecessary] if d.code in ("overridden", "unused-parameter", "empty-rule") else None
    return lsp.Diagnostic(place, words, SEVERITY[d.severity], d.code, source="nnac", related_information=related
                          or None, tags=tags)


class Protocol(LanguageServerProtocol):
    """Answers every request: also those that cannot be understood, which pygls only logs, and those after
    `shutdown`."""

    def structure_message(self, data: dict[str, Any]) -> Any:
        try:
            message = super().structure_message(data)
        except JsonRpcException as error:
            if "method" in data and _is_id(data.get("id")):
                self._send_response(data["id"], None, error.to_response_error())
                return None
            raise
        if data.get("jsonrpc", "2.0") != "2.0" and "method" in data and _is_id(data.get("id")):
            self._send_response(data["id"], None, JsonRpcInvalidRequest().to_response_error())
            return None
        return message

    def handle_message(self, message: Any) -> None:
        if message is None or not hasattr(message, "jsonrpc"):                 # answered already, or no message at all
            return
        if self._shutdown and hasattr(message, "method") and _is_id(getattr(message, "id", None)):
            self._send_response(message.id, None, JsonRpcInvalidRequest().to_response_error())
            return
        super().handle_message(message)


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def build() -> LanguageServer:
    """The server, its features registered."""
    server = LanguageServer("nnac", __version__, protocol_cls=Protocol)
    session = Session()

    def publish(uri: str) -> None:
        path = path_of(uri)
        found = session.change(path, server.workspace.get_text_document(uri).source)
        server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, [diagnostic(d, uri) for d in found]))

    def where(params: Any) -> tuple[Path, Source, int]:
        path = path_of(params.text_document.uri)
        source = session.workspace.file(path).source
        return path, source, offset_of(source, params.position)

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        session.close(path_of(params.text_document.uri))
        server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(params.text_document.uri, []))

    @server.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[".", "(", " ", "=", '"']))
    def completion(params: lsp.CompletionParams) -> lsp.CompletionList:
        path, _, offset = where(params)
        items = [lsp.CompletionItem(i.text, kind=KINDS.get(i.kind, lsp.CompletionItemKind.Value), detail=i.kind,
                                    documentation=i.doc or None)
                 for i in session.complete(path, offset)]
        return lsp.CompletionList(False, items)

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        path, _, offset = where(params)
        found = session.hover(path, offset)
        if found is None:
            return None
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, f"```text\n{found[0]}\n```"), range_of(found[1]))

    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        path, _, offset = where(params)
        found = session.definition(path, offset)
        return lsp.Location(found[0].as_uri(), range_of(found[1])) if found is not None else None

    @server.feature(lsp.TEXT_DOCUMENT_RENAME)
    def rename(params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        path, _, offset = where(params)
        found = session.rename(path, offset, params.new_name)
        if isinstance(found, str):
            server.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Warning, found))
            return None
        mine = params.text_document.uri
        return lsp.WorkspaceEdit({mine if p == path else p.as_uri(): [lsp.TextEdit(range_of(e.span), e.text)
                                                                      for e in edits]
                                  for p, edits in found.items()})

    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def formatting(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        path = path_of(params.text_document.uri)
        source = session.workspace.file(path).source
        text = session.format(path)
        if text is None or text == source.text:
            return []
        return [lsp.TextEdit(lsp.Range(lsp.Position(0, 0), position_of(source, len(source.text))), text)]

    @server.feature(lsp.TEXT_DOCUMENT_CODE_ACTION)
    def actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        path = path_of(params.text_document.uri)
        checked = session.checked.get(path)
        source = session.workspace.file(path).source
        low, high = offset_of(source, params.range.start), offset_of(source, params.range.end)
        out = []
        for d in checked.diagnostics if checked is not None else ():
            if d.fix and d.span is not None and d.span.source is source and d.span.start <= high and d.span.end >= low:
                edits: list[Any] = [lsp.TextEdit(range_of(e.span), e.text) for e in d.fix if e.span.source is source]
                out.append(lsp.CodeAction(d.help[0] if d.help else "mend it", lsp.CodeActionKind.QuickFix,
                                          edit=lsp.WorkspaceEdit({params.text_document.uri: edits})))
        return out

    return server


def serve() -> None:
    """Speak over standard input and output until the editor leaves."""
    build().start_io()
