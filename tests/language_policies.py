"""Random policies for property tests: right ones, over the whole vocabulary, in any layout."""

from __future__ import annotations

from attrs import NOTHING
from hypothesis import strategies as st

from nnac.compression.base import Argument, forms, methods
from nnac.language.settings import SETTINGS

PATHS = ["**", "encoder.**", "encoder.lstm[*].**", "encoder.lstm[0..1].{input, recurrent}",
         "encoder.lstm[2].input.gate.{i, f}", "joint.output.**",
         "{encoder, prediction}.lstm[*].**", "**.lstm[0].recurrent", "prediction.embedding.weight, joint.*.weight",
         "encoder.lstm[1].*"]
LAYERS = ["**", "encoder.**", "**.lstm[*]", "encoder.lstm[0..2]", "{encoder, prediction}.lstm[0]"]
BLANK = st.sampled_from([" ", "  ", "\t", "   "])
END = st.sampled_from(["\n", ";", "\n\n\n", "  # a comment\n", ";;\n", "\r\n"])


def number(low: float, high: float) -> st.SearchStrategy[str]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False).map(lambda x: format(x,
        ".4f").rstrip("0").rstrip(".") or "0")


@st.composite
def argument(draw: st.DrawFn, spec: Argument) -> str:
    """A value that fits an argument, as text."""
    low = spec.low if spec.low is not None else 0
    high = spec.high if spec.high is not None else low + 1000
    if spec.kind == "integer":
        return str(draw(st.integers(int(low), int(min(high, 100_000)))))
    if spec.kind == "number":
        return draw(number(low + 1e-3, min(high, 1e5)))
    if spec.kind == "fraction":
        return draw(st.sampled_from(["50%", "25 %", "(10% + 5%)", "12.5%"]))
    if spec.kind == "boolean":
        return draw(st.sampled_from(["true", "false"]))
    if spec.kind == "choice":
        return draw(st.sampled_from(spec.choices))
    if spec.kind == "moment":
        return draw(st.sampled_from(["4k steps", "100 steps", "50%", "2*1k steps", "2 epochs"]))
    if spec.kind == "span":
        return draw(st.sampled_from(["0..2k steps", "1k..2k steps", "0 %..50%"]))
    if spec.kind == "change":
        return draw(st.sampled_from(["1 -> 300", "1->2.5", "0.1 -> 1e3"]))
    if spec.kind == "numbers":
        return draw(st.sampled_from(["[-1, 1]", "[ 0,1/3 ]", "[-(2 * 3), 0.5]"]))
    return draw(called(draw(st.sampled_from(list(forms(spec.form).values())))))


@st.composite
def called(draw: st.DrawFn, cls: type) -> str:
    """A method or form with some of its arguments."""
    parts, named = [], False
    for name, (spec, default) in cls.arguments().items():  # type: ignore[attr-defined]
        required = default is NOTHING
        if not (required or draw(st.booleans())):
            named = True
            continue
        text = draw(argument(spec))
        if cls.keyword == "n_m" and name == "n":  # type: ignore[attr-defined]
            text = "1"
        bare = spec.positional and not named
        named = named or not bare
        parts.append(text if bare else f"{name}{draw(st.sampled_from(['=', ' = ']))}{text}")
    keyword = cls.keyword  # type: ignore[attr-defined]
    comma = draw(st.sampled_from([", ", ",", " ,  ", ",\n   "]))
    return f"{keyword}({comma.join(parts)})" if parts else keyword


@st.composite
def setting(draw: st.DrawFn, name: str) -> str:
    spec = SETTINGS[name]
    words = [name]
    cls = draw(st.sampled_from([None, *methods(name).values()])) if spec.methods else None
    if name == "frames":
        return f"frames {draw(st.integers(1, 8))}"
    if spec.choices and cls is None:
        return f"{name} {draw(st.sampled_from(spec.choices))}"
    if spec.widths and not (cls is not None and (cls.takes_bits() or cls.fixed_bits is not None)):
        widths = cls.widths if cls is not None and cls.widths else spec.widths
        width = draw(st.sampled_from([w for w in widths if w in spec.widths] or spec.widths))
        words.append(draw(st.sampled_from([f"int{width}", f"int({width})"])))
    if spec.granularity and draw(st.booleans()):
        words.append(draw(st.sampled_from(["per_tensor", "per_channel", "per_gate", "per_group(16)"])))
    if name == "cell" and draw(st.booleans()):
        words.append(draw(st.sampled_from(["fraction(5)", "auto"])))
    if cls is not None:
        words.append(draw(called(cls)))
    return draw(BLANK).join(words)


@st.composite
def rule(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(list(SETTINGS)), min_size=1, max_size=4, unique=True))
    weightwise = all(SETTINGS[n].level == "kernel" for n in names)
    path = draw(st.sampled_from(PATHS if weightwise else LAYERS[:2]))
    body = "".join(draw(setting(n)) + draw(END) for n in names)
    gap, opening = draw(st.sampled_from(["", " ", "  "])), draw(st.sampled_from([" ", "\n", "\n# c\n"]))
    return f"layers {path}{gap}{{{opening}{body}}}"


@st.composite
def policies(draw: st.DrawFn) -> str:
    """A file with one policy."""
    sentences = draw(st.lists(rule(), min_size=0, max_size=5))
    extra = draw(st.lists(st.sampled_from(["let a = 1 + 2 * (3 - 4)", "let b = -5 %", "let c = 4k steps",
                                           "budget { weights <= 100 MiB; cycles<=1e9 cycles }",
                                           "training { steps 60k steps; steps_per_epoch 1k steps }",
                                           "sweep d over [1, 2,3]", "let e = 0..2k steps"]),
                          max_size=4, unique_by=lambda x: x.split()[1] if x.split()[0] in ("let", "sweep")
                          else x.split()[0]))
    mixed = draw(st.permutations(sentences + extra))
    head = 'import "targets/edge.nnac"\npolicy p {\n model rnnt(size="small")' + draw(END) + "target edge" + draw(END)
    return head + "".join(x + draw(END) for x in mixed) + "}" + draw(st.sampled_from(["", "\n", "\n# the end"]))


KERNELS = ["encoder.lstm[0].input", "encoder.lstm[1].recurrent", "encoder.lstm[*].{input, recurrent}", "**.lstm[*].**",
           "joint.output.weight",
           "joint.{encoder, prediction}.weight", "encoder.lstm[0].input.gate.{i, f}", "prediction.**", "**"]
PLACES = ["encoder.lstm[*]", "**.lstm[0]", "encoder.norm[*]", "joint.*", "**", "prediction.lstm[0]"]
OFTEN = ["weights", "weights", "weights", "accumulate", "sparsity", "codec"]


@st.composite
def small_policies(draw: st.DrawFn) -> str:
    """A policy on a model small enough to be trained, compiled and run within a second; a third of them are refused by
    the linter."""
    rules = []
    for name in draw(st.lists(st.sampled_from(OFTEN + list(SETTINGS)), min_size=1, max_size=4)):
        path = "**" if name == "frames" else draw(st.sampled_from(KERNELS if SETTINGS[name].level == "kernel"
                                                                  else PLACES))
        rules.append(f"  layers {path} {{ {draw(setting(name))} }}\n")
    shape = (f"cells={draw(st.sampled_from([16, 7, 24]))}, embedding=8, "
             f"prediction_cells={draw(st.sampled_from([16, 9]))}, joint=16, vocabulary=29")
    shape += draw(st.sampled_from(["", ", bidirectional=true", ", project=6", ", norm=false", ', combine="multiply"',
                                   ", reduce=1"]))
    target = draw(st.sampled_from(["edge", "rapid", "tiny", "large"]))
    return (f'import "specs/targets/{target}.nnac"\npolicy p '
            f'{{\n  model rnnt(size="small", layers=2, {shape})\n  target {target}\n'
            "  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }\n" + "".join(rules)
            + "  training { steps 6k steps; steps_per_epoch 1k steps }\n}\n")
