"""The manual is right: its policies lint, are formatted, and its tables name every setting and unit."""

from __future__ import annotations

import re

import pytest

import nnac
from nnac.language.check import check_text
from nnac.language.format import format_text
from nnac.language.settings import SETTINGS
from nnac.language.tables import data_file

MANUAL = data_file("grammar", "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```nnac\n(.*?)```", MANUAL, re.S)


@pytest.mark.parametrize("text", BLOCKS, ids=range(len(BLOCKS)))
def test_policies_of_the_manual_are_right(text):
    checked = check_text(text, "manual.nnac")
    assert [str(d) for d in checked.diagnostics if d.severity != "note"] == []
    # comments of the manual stand in one column by hand; all else is laid out as `nnac fmt` does
    bare = re.sub(r" *#.*", "", text)
    assert format_text(bare) == bare


def test_the_manual_names_every_setting():
    for name in SETTINGS:
        assert f"`{name}`" in MANUAL


def test_the_python_of_the_manual_runs():
    (code,) = re.findall(r"```python\n(.*?)```", MANUAL, re.S)
    scope: dict = {}
    exec(code, scope)
    assert scope["policy"].plan["encoder.lstm[0].input"].weights.bits == 8 and nnac.load
