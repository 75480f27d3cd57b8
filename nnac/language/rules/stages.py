"""The manual of the diagnostics that parsing and resolving emit themselves."""

from __future__ import annotations

from nnac.language.rules.base import HEADER, Rule, example

TARGET = ("target example {\n  clock     500 MHz\n  lanes     64\n  columns   4\n  sram      512 KiB\n  pinned    128 "
          "KiB\n"
          "  dram      bandwidth(3.75 GB/s) latency(250 cycles) burst(128 bytes)\n  multiply  int8(1)\n%s}\n")


class Syntax(Rule):
    """A sentence that the grammar does not know.

    A line, or a `;`, ends a sentence.  A policy holds `model`, `target`, `let`, `sweep`, `layers`, `training` and
    `budget`.  The rest of the file is read as well, so that one run shows every mistake.
    """

    code = "syntax"
    example = example("layers encoder.lstm[0 { weights int8 }\nlayerss joint.** { weights int8 }")


class NotUtf8(Rule):
    """Bytes that are not UTF-8 text.

    Policies are UTF-8 text files.  Save the file as UTF-8.
    """

    code = "not-utf8"
    example = "policy caf\\xe9 { }\n"


class NumberOutOfBounds(Rule):
    """A number beyond anything that makes sense here.

    Exponents end at +-300.
    """

    code = "number-out-of-bounds"
    example = example("let big = 1e9999")


class UnknownLayer(Rule):
    """A selector, or a part of one, that selects nothing.

    In other tools a mis-spelled layer name is silent: the layer is simply not compressed.  Paths are those that
    `nnac explain FILE` prints.
    """

    code = "unknown-layer"
    example = example("layers encoder.lstmm[*].{input, recurent} { weights int4 }\nlayers encoder.lstm[0..7] { "
                      "activations int8 }")


class UnknownSetting(Rule):
    """A name that is no setting of a rule, of `training` or of `budget`."""

    code = "unknown-setting"
    example = example("layers ** { wieghts int8 }")


class UnknownMethod(Rule):
    """A name that is no compression method, or none of this setting.

    `nnac explain --methods` lists them all with their arguments.
    """

    code = "unknown-method"
    example = example("layers encoder.lstm[*].** { weights gqq(5) }\nlayers encoder.lstm[*] { activations int8 "
                      "mracos(strength=1) }")


class UnknownArgument(Rule):
    """An argument that a method, form or model does not have."""

    code = "unknown-argument"
    example = example("layers encoder.lstm[*].** { weights gq(5, freqency=2) }")


class UnnamedArgument(Rule):
    """An argument that must be named.

    Only the first arguments, whose meaning is plain, may stand without a name.
    """

    code = "unnamed-argument"
    example = example("layers encoder.lstm[*].** { weights gq(5, 255) }")


class DuplicateArgument(Rule):
    """An argument that is given twice."""

    code = "duplicate-argument"
    example = example("layers encoder.lstm[*].** { weights gq(5, bits=4) }")


class MissingArgument(Rule):
    """An argument without default that is not given."""

    code = "missing-argument"
    example = example("layers encoder.lstm[*].** { weights gq }")


class UnknownChoice(Rule):
    """A word that is none of those that may stand here."""

    code = "unknown-choice"
    example = example("layers ** { place cpuu }")


class UnknownWord(Rule):
    """A word that a setting does not take."""

    code = "unknown-word"
    example = example("layers ** { weights int8 per_chanel }")


class DuplicateWord(Rule):
    """A setting that says the same thing twice, or a width beside a method that brings its own."""

    code = "duplicate-word"
    example = example("layers ** { weights int8 int4 }")


class TooManyWords(Rule):
    """More words than a setting takes.

    Arguments of a method stand in brackets: `harden every(500 steps, from=2k steps)`.
    """

    code = "too-many-words"
    example = example("layers encoder.lstm[*].** {\n  weights lloyd_max(4)\n  harden every 500 steps\n}")


class MissingWord(Rule):
    """A setting that does not say enough."""

    code = "missing-word"
    example = example("layers ** { activations percentile(99.9) }")


class DuplicateSetting(Rule):
    """A setting that one block says twice.

    Between rules the later wins; within one rule it is a slip.
    """

    code = "duplicate-setting"
    example = example("layers ** { weights int8; weights int4 }")


class DuplicateStatement(Rule):
    """A second `model` or `target`, or a parameter defined twice, in one policy."""

    code = "duplicate-statement"
    example = example("target edge\nlayers ** { weights int8 }")


class DuplicateName(Rule):
    """Two policies, or two targets, of one name."""

    code = "duplicate-name"
    example = example("layers ** { weights int8 }") + "\n" + example("layers ** { weights int8 }",
                                                                     HEADER.partition("\n\n")[2])


class UnknownUnit(Rule):
    """A name after a number that is no unit.

    There are: steps, epochs, %, bytes, KiB, MiB, kB, MB, s, ms, us, ns, Hz … GHz, cycles, B/s … GB/s, pJ.
    """

    code = "unknown-unit"
    example = example("training { steps 6k stepps }")


class WrongUnit(Rule):
    """A value with the wrong unit, or units that do not go together.

    Steps are not epochs, kB are not KiB, and a time is not a number of cycles: dividing cycles by a frequency makes it
    one.
    """

    code = "wrong-unit"
    example = example("let budgeted = 1 MiB + 3 ms\nbudget { latency <= 500 KiB }")


class WrongType(Rule):
    """A value of the wrong kind: a text for a number, a number for a percentage."""

    code = "wrong-type"
    example = example("training { steps 6k steps }\nlayers encoder.lstm[*].** { sparsity csp(0.75) }")


class OutOfRange(Rule):
    """A value beyond the bounds that its argument declares."""

    code = "out-of-range"
    example = example("layers encoder.lstm[*].** { weights gq(9) }")


class UnknownName(Rule):
    """A name in an expression that no `let` or `sweep` defines, or a -D for none."""

    code = "unknown-name"
    example = example("let bits = 4\nlayers encoder.lstm[*].** { weights gq(bitz) }\nlayers joint.output.** { weights "
                      "int(bits) }")


class ReservedName(Rule):
    """A parameter called true, false or none."""

    code = "reserved-name"
    example = example("let true = 1")


class CircularLet(Rule):
    """A parameter that is defined through itself."""

    code = "circular-let"
    example = example("let a = b + 1\nlet b = a * 2\nlayers ** { weights int(a) }")


class UnknownModel(Rule):
    """A model for which there is no builder."""

    code = "unknown-model"
    example = 'import "targets/edge.nnac"\n\npolicy example {\n  model rnntt(size="small")\n  target edge\n}\n'


class ModelFromPython(Rule):
    """A policy for a model of the user's own, which only `nnac.prepare` sees.

    Rules about its layers are checked there, not here.
    """

    code = "model-from-python"
    example = 'import "targets/edge.nnac"\n\npolicy example {\n  model module\n  target edge\n}\n'


class ImpossibleModel(Rule):
    """A model that its builder cannot build: an unknown size, a dimension out of bounds."""

    code = "impossible-model"
    example = 'import "targets/edge.nnac"\n\npolicy example {\n  model rnnt(size="smal")\n  target edge\n}\n'


class UnknownTarget(Rule):
    """A target that is not declared, or not imported."""

    code = "unknown-target"
    example = 'policy example {\n  model rnnt(size="small")\n  target edge\n}\n'


class UnknownPolicy(Rule):
    """A policy that does not exist, after `extends` or --policy."""

    code = "unknown-policy"
    example = ('policy base {\n  layers ** { weights int8 }\n}\n\npolicy example extends bsae {\n'
               '  layers ** { cell int16 }\n}\n')


class CircularExtends(Rule):
    """Policies or targets that extend each other in a circle."""

    code = "circular-extends"
    example = ('policy a extends b {\n  layers ** { weights int8 }\n}\n\npolicy b extends a {\n'
               '  layers ** { cell int16 }\n}\n')


class MissingImport(Rule):
    """A file that is imported and cannot be found or read.

    Imports are looked up beside the importing file, then among nnac's own specs.
    """

    code = "missing-import"
    example = 'import "targets/egde.nnac"\n'


class CircularImport(Rule):
    """Files that import each other in a circle."""

    code = "circular-import"
    example = 'import "circular-import.nnac"\n'


class UnsupportedWidth(Rule):
    """A width that a setting or a method is not defined for."""

    code = "unsupported-width"
    example = example("layers ** { weights int9 }\nlayers joint.output.** { weights int6 sawb }")


class UnknownField(Rule):
    """A field that a target does not have."""

    code = "unknown-field"
    example = TARGET % "  colums    4\n"


class IncompleteTarget(Rule):
    """A target that lacks a field, or whose fields contradict each other."""

    code = "incomplete-target"
    example = "target example {\n  clock  500 MHz\n  lanes  64\n}\n"


class NoPolicy(Rule):
    """A file that declares no policy, where one is needed.

    `nnac.load` and the commands that compile need a policy with a model and a target.
    """

    code = "no-policy"
    example = TARGET % ""


class WhichPolicy(Rule):
    """A file of several policies, where one is needed and none is named.

    `nnac.load` and the commands that compile take the policy that is called as the file is, or else the only one that
    no other extends.  Several of those are a choice, which `--policy NAME` makes.
    """

    code = "which-policy"
    example = (TARGET % "" + "policy a {\n  model rnnt(size=\"small\")\n  target example\n}\n"
               "policy b {\n  model rnnt(size=\"small\")\n  target example\n}\n")
