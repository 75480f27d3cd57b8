"""Rules about how outputs become words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnac.diagnostics import Diagnostic
from nnac.errors import UserError
from nnac.language.decoding import files_of
from nnac.language.rules.base import Resolution, Rule, example, problem
from nnac.language.rules.budget import estimated, shown

if TYPE_CHECKING:
    from nnac.model.graph import ModelGraph


class FusionDomain(Rule):
    """A language model beside the recogniser, which helps on the sentences of its own domain and does harm on others.

    Fusion weighs what was heard against what is usually said there.  On its domain it saves the shipped network a
    quarter to a third of its word errors; on sentences of another, the weights that were best at home have raised them
    from 2 to 37 % (`make bench-search`).  So it is off unless a policy or a command asks for it, and its weights are
    found on a development set of the domain (`nnac tune-fusion`).
    """

    code = "fusion-domain"
    example = example("layers ** { weights int8 }\ndecode { search beam(8); fusion density_ratio(0.3, 0.2) }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if (r.decode is not None and r.decode.search == "beam" and r.decode.fusion != "none"
                and "fusion" in r.decode_nodes):
            statement, setting = r.decode_nodes["fusion"]
            cost = estimated(r) if r.decode.files else None
            price = (f"its language models take about {cost.beside_share:.0%} of the machine's time, "
                     f"{shown('rtf', cost.rtf)} in all" if cost is not None and cost.languages else "")
            yield problem(
                self.code, statement.span(setting),
                          f"`{r.decode.fusion}` belongs to one domain: on other sentences it does "
                "harm", "of every sentence that the program hears",
                          "weights are found by `nnac tune-fusion` on sentences of "
                "that domain; `nnac run --search beam` sets the block aside", price, severity="note")


class LanguageModel(Rule):
    """A file that `fusion` names and that no program for this policy can carry.

    The program holds the language models that its policy names, as entries of their own: so each must be what `nnac
    train --text` wrote, on as many tokens as the recogniser has, for the same machine.  Paths lead from the folder of
    the policy.  A file that is not there yet is a warning: training needs none, `nnac compile` does, or another by
    --lm and --source-lm.  Whether the tokens are the very same, the compiler decides: they come with the float network.
    """

    code = "language-model"
    example = example('layers ** { weights int8 }\n'
                      'decode { search beam(8); fusion shallow(target="home-lm.nnc", 0.3) }')

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        for name, statement, argument, path in files_of(r):
            span, written = statement.span(argument), os.path.basename(path)
            if not os.path.lexists(path):
                yield problem(self.code, span, f"`{written}`: no such file", "paths lead from the policy's folder",
                              f"training needs none; `nnac compile` does, or --{name.replace('_', '-')} FILE",
                              severity="warning")
            elif wrong := self._wrong(r, path):
                message, help = wrong
                yield problem(self.code, span, f"`{written}`: {message}", "of this language model", help)

    @staticmethod
    def _wrong(r: Resolution, path: str) -> tuple[str, str] | None:
        """What keeps a file out of the program, and what instead."""
        from nnac.language.beside import described

        try:
            plan = described(path)
        except UserError as error:
            return str(error).removeprefix(path).lstrip(": "), "`nnac train POLICY --text FILE` writes one"
        mine, own = _tokens(r.model), _tokens(plan.graph)
        if mine != own:
            return f"{own} tokens, the recogniser has {mine}", "train it with --tokens: the recogniser's own"
        if r.target is not None and plan.target != r.target:
            return (f"for the target `{plan.target.name}`, this policy for `{r.target.name}`",
                    "one program runs on one machine: train it under a policy of the same target")
        return None


def _tokens(model: ModelGraph | None) -> int:
    """How many tokens a model says: the width of what its last entry makes."""
    return 0 if model is None else model.by_path[model.entries[-1].outputs[0]].width
