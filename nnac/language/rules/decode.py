"""Rules about how outputs become words."""

from __future__ import annotations

from collections.abc import Iterator

from nnac.diagnostics import Diagnostic
from nnac.language.rules.base import Resolution, Rule, example, problem


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
            yield problem(
                self.code, statement.span(setting),
                          f"`{r.decode.fusion}` belongs to one domain: on other sentences it does "
                "harm", "of every sentence that the program hears",
                          "weights are found by `nnac tune-fusion` on sentences of "
                "that domain; `nnac run --search beam` sets the block aside", severity="note")
