"""The map: what the code cites is there, and what the documents name exists."""

import builtins
import inspect
import re
from pathlib import Path

import pytest

import nnac
from nnac.train.prepare import PreparedModule
from nnac.train.transducer import PreparedTransducer

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for folder in ("nnac", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")
                 if p != Path(__file__))
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]


def sections(document: Path) -> set[str]:
    """Numbers of the headings: ``## 5. The arithmetic`` -> 5."""
    return set(re.findall(r"^##+ (\d+)\b", document.read_text("utf-8"), re.M))


def test_every_section_that_the_code_cites_exists():
    cited = {(m[0], m[1]) for p in SOURCES for m in re.findall(r"docs/(\w+)\.md §(\d+)", p.read_text("utf-8"))}
    assert len(cited) >= 6
    for name, number in sorted(cited):
        assert number in sections(ROOT / "docs" / f"{name}.md"), f"docs/{name}.md has no section {number}"


def test_nothing_cites_a_document_that_is_not_here():
    for path in SOURCES:
        assert not re.search(r"\b(DESIGN|METHODS|STYLE|PEERS)\b`* §", path.read_text("utf-8")), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_and_path_of_a_document_exists(document):
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert "://" in target or (document.parent / target).exists(), f"{document.name} links to {target}"
    for path in re.findall(r"`((?:nnac|tests|specs|benchmarks|grammar|docs)/[\w./-]+\.\w+)`", text):
        assert Path(path).stem.partition("_")[0] == "X" or (ROOT / path).exists(), f"{document.name} names {path}"


def test_whatever_public_functions_say_that_they_raise_is_exported_and_on_the_page_of_models():
    said = set()
    for public in [getattr(nnac, name) for name in nnac._LAZY] + [PreparedModule, PreparedTransducer]:
        members = [m for n, m in inspect.getmembers(public) if not n.startswith("_")] if inspect.isclass(public) else []
        for one in (public, *(m for m in members if getattr(m, "__module__", "").startswith("nnac"))):
            said |= set(re.findall(r"\b\w+(?:Error|Warning)\b", inspect.getdoc(one) or ""))
    said -= {name for name in said if hasattr(builtins, name)}
    errors = {name for name in nnac._LAZY if name.endswith(("Error", "Warning"))}
    assert len(said) >= 8 and said <= errors, said - errors
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    assert {name for name in errors if f"`nnac.{name}`" not in page} == set()
    assert all(issubclass(getattr(nnac, name), Exception) for name in errors)
