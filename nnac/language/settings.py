"""The settings of a rule: which sites each belongs to, the words it is made of, and the value they give.

``SETTINGS`` is the vocabulary: completion, hover, "did you mean" and the manual read it.  ``read`` turns a setting's
words into its value.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from attrs import frozen

from nnac.compression.base import Argument, find, methods
from nnac.diagnostics import did_you_mean, near, nearest
from nnac.formats import CELL
from nnac.language import syntax as s
from nnac.language.values import UNKNOWN, Names, Report, coerce, describe, evaluate, method
from nnac.plan import AUTO, Activations, Cell, Granularity, Weights, Width
from nnac.target import CODECS

GRANULARITIES = ("per_tensor", "per_channel", "per_gate", "per_group")
WEIGHT_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16)
ACTIVATION_WIDTHS = (4, 8, 16)


@frozen
class SettingWords:
    """What may be said about one setting.

    level     leaf (weights live there: gates, or kernels without gates) | layer | recurrent | weighted | encoder: which
              sites have it
    doc       one sentence            widths   bit widths it takes
    methods   whether compression methods can stand in it
    choices  plain words, if it is only a choice among them
    """

    level: str
    doc: str
    widths: tuple[int, ...] = ()
    methods: bool = False
    granularity: bool = False
    choices: tuple[str, ...] = ()
    example: str = ""


SETTINGS: dict[str, SettingWords] = {
    "weights": SettingWords("kernel", "how weights are held: width, what shares a scale, method", WEIGHT_WIDTHS, True,
                            True,
                            example="weights int8 per_channel"),
    "activations": SettingWords("layer", "how a layer's output is held", ACTIVATION_WIDTHS, True,
                                example="activations int8 percentile(99.99)"),
    "hidden": SettingWords("recurrent", "how the hidden state is held; follows `activations` if not said",
                           ACTIVATION_WIDTHS, True,
                           example="hidden int4 fixed(1)"),
    "cell": SettingWords("recurrent", "how the cell state is held: int16 and its fractional bits, or `auto`", (16,),
                         example="cell int16 fraction(11)"),
    "bias": SettingWords("weighted", "width of the biases: that of the accumulator", (32,), example="bias int32"),
    "accumulator": SettingWords("weighted", "width of the sums of products; int48 for int16 operands", (32, 48),
                                example="accumulator int48"),
    "accumulate": SettingWords("recurrent",
        "acc32: input and recurrent products share one sum; sum16: two requantised sums are added",
                               choices=("acc32", "sum16"), example="accumulate acc32"),
    "place": SettingWords("layer", "where a layer runs", choices=("nna", "cpu"), example="place cpu"),
    "frames": SettingWords("encoder", "encoder steps whose input products are computed together", example="frames 4"),
    "round": SettingWords("kernel", "how weights come to their levels after calibration; none: to the nearest",
                          methods=True, choices=("none",), example="round gptq"),
    "regularise": SettingWords("kernel", "a term of the loss that pulls weights to where they will be held",
                               methods=True,
                               choices=("none",), example="regularise mracos(pull=30%, ramp=0..2k steps)"),
    "harden": SettingWords("kernel", "when weights are set to their nearest centroids in place", methods=True,
                           choices=("none",),
                           example="harden every(500 steps, from=2k steps)"),
    "sparsity": SettingWords("kernel", "which weights become zero, and when", methods=True, choices=("none",),
                             example="sparsity csp(75%, block=16, from=1k steps, to=6k steps)"),
    "codec": SettingWords("kernel", "format of the weight stream; auto: the smallest", choices=("auto", *CODECS),
                          example="codec block_bitmap"),
    "pin": SettingWords("kernel", "keep these weights in SRAM", choices=("auto", "always", "never"),
                        example="pin always"),
}
NONE = None                                    # `regularise none`: what an earlier rule said is taken back
WIDTH = re.compile(r"(int|fp)(\d+)$|float$")


def read(setting: s.Setting, names: Names, report: Report) -> Any:
    """The value that a setting's words give; UNKNOWN after a complaint."""
    name, words = setting.name.text, setting.words
    spec = SETTINGS.get(name)
    if spec is None:
        help = did_you_mean(name, SETTINGS)
        if find(name) is not None:
            belongs = find(name).settings[0]  # type: ignore[union-attr]
            help = f"`{name}` is a method: write `{belongs} {name}…`"
        report("unknown-setting", setting.name, f"no setting is called `{name}`", "", help, fix=nearest(name, SETTINGS))
        return UNKNOWN
    if not words:
        report("missing-word", setting.name, f"`{name}` says nothing", spec.doc, f"for example `{spec.example}`")
        return UNKNOWN
    if name == "frames":
        return _alone(words) and coerce(Argument("integer", "", low=1, high=64), words[0], names, report, "`frames`") \
            if _single(setting, report) else UNKNOWN
    if spec.choices and not spec.methods:
        return _choice(setting, spec, report)
    if spec.methods and not spec.widths:
        if not _single(setting, report):
            return UNKNOWN
        if isinstance(words[0], s.Name) and words[0].text == "none":
            return NONE
        return method(name, words[0], names, report)
    return _composed(setting, spec, names, report)


def _alone(words: tuple[Any, ...]) -> bool:
    return len(words) == 1


def _single(setting: s.Setting, report: Report) -> bool:
    """Whether the setting has one word; complains about the second."""
    if len(setting.words) == 1:
        return True
    report("too-many-words", setting.words[1], f"`{setting.name.text}` takes one word", "",
           *_call_hint(setting), f"for example `{SETTINGS[setting.name.text].example}`")
    return False


def _call_hint(setting: s.Setting) -> tuple[str, ...]:
    """``every 500 steps``: arguments go into brackets."""
    first = setting.words[0]
    if isinstance(first, s.Name) and find(first.text) is not None:
        return (f"arguments of `{first.text}` stand in brackets: `{first.text}(…)`",)
    return ()


def _choice(setting: s.Setting, spec: SettingWords, report: Report) -> Any:
    name = setting.name.text
    if not _single(setting, report):
        return UNKNOWN
    word = setting.words[0]
    if not isinstance(word, s.Name) or word.text not in spec.choices:
        shown = word.text if isinstance(word, s.Name) else "…"
        report("unknown-choice", word, f"`{name}` is one of {', '.join(f'`{c}`' for c in spec.choices)}, not `{shown}`",
               "",
               did_you_mean(shown, spec.choices), fix=nearest(shown, spec.choices))
        return UNKNOWN
    return word.text


def _composed(setting: s.Setting, spec: SettingWords, names: Names, report: Report) -> Any:
    """Width, granularity, fraction and method, each at most once, in any order."""
    name = setting.name.text
    parts: dict[str, tuple[Any, Any]] = {}       # role -> (value, node)
    clean = True
    for word in setting.words:
        role, value = _role(name, spec, word, names, report)
        if value is UNKNOWN:
            clean = False
        elif role in parts:
            report("duplicate-word", word, f"`{name}` says its {role} twice", "",
                   f"keep one of `{_text(parts[role][1])}` and `{_text(word)}`")
            clean = False
        parts.setdefault(role, (value, word))
    if not clean:
        return UNKNOWN
    width = parts["width"][0] if "width" in parts else None
    how = parts["method"][0] if "method" in parts else None
    if name == "weights":
        return _weights(setting, width, parts.get("granularity"), how, parts, report)
    if width is None:
        report("missing-word", setting, f"`{name}` does not say its width", "", f"for example `{spec.example}`")
        return UNKNOWN
    if name == "cell":
        return _cell(width, parts.get("fraction"), report)
    if name in ("bias", "accumulator"):
        return width
    if how is not None and type(how).widths and width.bits not in type(how).widths:
        return _bad_width(parts["width"][1], how, width, report)
    return Activations(width, how or find("minmax")())  # type: ignore[misc]


def _role(name: str, spec: SettingWords, word: Any, names: Names, report: Report) -> tuple[str, Any]:
    """What a word is (width, granularity, fraction, method), and its value."""
    text = word.text if isinstance(word, s.Name) else word.name.text if isinstance(word, s.Call) else ""
    if isinstance(word, s.Call) and text == "int":
        bits = _bits(word, names, report)
        return "width", UNKNOWN if bits is UNKNOWN else _width(word, Width(bits), name, spec, report)
    if WIDTH.match(text) and isinstance(word, s.Name):
        return "width", _width(word, Width.parse(text), name, spec, report) if len(text) < 9 else _no_width(word, text,
            name, spec, report)
    if text.startswith("per_") and spec.granularity:
        return "granularity", _granularity(word, text, names, report)
    if text == AUTO and name == "cell":
        if isinstance(word, s.Call):
            report("unknown-argument", word, f"`{AUTO}` takes no arguments", fix=AUTO)
            return "fraction", UNKNOWN
        return "fraction", None
    if text == "fraction" and name == "cell":
        return "fraction", _one_argument(word, Argument("integer", "fractional bits", low=1, high=15), names, report,
                                         "`fraction`")
    if not spec.methods:
        wanted = f"takes a width{' and `fraction(n)` or `auto`' if name == 'cell' else ''}"
        shown = describe(evaluate(word, names, lambda *a, **k: None)) if not text else f"`{text}`"
        known = [f"int{b}" for b in spec.widths] + (["fraction", AUTO] if name == "cell" else [])
        report("unknown-word", word, f"`{name}` {wanted}, not {shown}", "", f"for example `{spec.example}`",
               *([did_you_mean(text, known)] if text and near(text, known) else []))
        return "word", UNKNOWN
    if text and find(text) is None:
        widths = [f"int{b}" for b in spec.widths]
        known = [*methods(name), *widths, *(GRANULARITIES if spec.granularity else ())]
        close = near(text, known)
        if close and close[0] not in methods(name):
            report("unknown-word", word, f"`{name}` has no word `{text}`", "", did_you_mean(text, known), fix=close[0])
            return "word", UNKNOWN
    return "method", method(name, word, names, report)


def _bits(word: s.Call, names: Names, report: Report) -> Any:
    return _one_argument(word, Argument("integer", "bits", low=1, high=32), names, report, "the width")


def _one_argument(word: Any, spec: Argument, names: Names, report: Report, what: str) -> Any:
    if not isinstance(word, s.Call) or len(word.arguments) != 1 or word.arguments[0].name is not None:
        report("missing-argument", word, f"{what} takes one number in brackets", "",
               "for example `fraction(11)`, `int(bits)`, `per_group(64)`")
        return UNKNOWN
    return coerce(spec, word.arguments[0].value, names, report, what)


def _width(word: Any, width: Width, name: str, spec: SettingWords, report: Report) -> Any:
    if (width.number == "int" and width.bits in spec.widths) or (name == "weights" and str(width) == "float"):
        return width
    return _no_width(word, str(width), name, spec, report)


def _no_width(word: Any, text: str, name: str, spec: SettingWords, report: Report) -> Any:
    known = ", ".join([f"int{b}" for b in spec.widths] + (["float"] if name == "weights" else []))
    why = "the machines compute integers, and so does training" if text in ("float", "fp16") else ""
    report("unsupported-width", word, f"`{name}` cannot be {text[:20]}", why, f"its widths: {known}")
    return UNKNOWN


def _granularity(word: Any, text: str, names: Names, report: Report) -> Any:
    if text not in GRANULARITIES:
        report("unknown-word", word, f"no granularity is called `{text}`", "", did_you_mean(text, GRANULARITIES),
               fix=nearest(text, GRANULARITIES))
        return UNKNOWN
    if text == "per_group":
        size = _one_argument(word, Argument("integer", "weights of a row", low=2, high=65536), names, report,
                             "`per_group`")
        return UNKNOWN if size is UNKNOWN else Granularity("group", size)
    if isinstance(word, s.Call):
        report("unknown-argument", word, f"`{text}` takes no arguments", fix=text)
        return UNKNOWN
    return Granularity(text[4:])  # type: ignore[arg-type]


def _weights(setting: s.Setting, width: Width | None, grain: tuple[Any, Any] | None, how: Any, parts: dict[str, Any],
             report: Report) -> Any:
    if how is None:
        if width is None:
            report("missing-word", setting, "`weights` does not say its width", "",
                   f"for example `{SETTINGS['weights'].example}`")
            return UNKNOWN
        if width.number == "fp":
            return Weights(width, Granularity("tensor"), None)
        how = find("minmax")()  # type: ignore[misc]
    cls = type(how)
    given = how.bits if cls.takes_bits() else cls.fixed_bits
    if given is not None:
        if width is not None:
            spelled = f"{cls.keyword}({given})" if cls.takes_bits() else cls.keyword
            report("duplicate-word", parts["width"][1], f"`{cls.keyword}` brings its own width", "",
                   f"write `weights {spelled}` without `{width}`")
            return UNKNOWN
        width = Width(given)
    if width is None:
        report("missing-word", setting, f"`weights {cls.keyword}` does not say its width", "",
               f"for example `weights int4 {cls.keyword}`")
        return UNKNOWN
    if width.number == "fp":
        report("contradictory-methods", parts["method"][1], "real weights are not quantised, so a method says nothing",
               "",
               "remove it, or choose an integer width")
        return UNKNOWN
    if cls.widths and width.bits not in cls.widths:
        return _bad_width(parts["width"][1], how, width, report)
    return Weights(width, grain[0] if grain else Granularity(cls.granularity), how)  # type: ignore[arg-type]


def _bad_width(node: Any, how: Any, width: Width, report: Report) -> Any:
    report("unsupported-width", node, f"`{how.keyword}` is not defined for {width}", "",
           f"its widths: {', '.join(f'int{b}' for b in type(how).widths)}")
    return UNKNOWN


def _cell(width: Width, fraction: tuple[Any, Any] | None, report: Report) -> Any:
    bits = CELL.fraction if fraction is None else fraction[0]
    if bits is not None and bits >= width.bits:
        assert fraction is not None
        report("out-of-range", fraction[1], f"{width} has no room for {bits} fractional bits", "",
               f"at most {width.bits - 1}")
        return UNKNOWN
    return Cell(width, bits)


def _text(node: Any) -> str:
    if isinstance(node, s.Name):
        return node.text
    return f"{node.name.text}(…)" if isinstance(node, s.Call) else "…"


def default(setting: str) -> Any:
    """What nnac takes where no rule says anything."""
    minmax = find("minmax")
    assert minmax is not None
    return {
        "weights": Weights(Width(8), Granularity("channel"), minmax()), "activations": Activations(Width(8), minmax()),
        "hidden": Activations(Width(8), minmax()), "cell": Cell(Width(16), CELL.fraction), "bias": Width(32),
        "accumulator": Width(32), "accumulate": "acc32", "place": "nna", "frames": 1, "round": None, "regularise": None,
            "harden": None, "sparsity": None,
        "codec": "auto", "pin": "auto",
    }[setting]


def spelled(setting: str, value: Any) -> str:
    """A setting as the language writes it."""
    return f"{setting} {'none' if value is None else value}"


__all__ = ["SETTINGS", "Fraction", "SettingWords", "default", "read", "spelled"]
