"""Rules about methods that do not go together on one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nnac.diagnostics import Diagnostic
from nnac.language.rules.base import Label, Resolution, Rule, by_entry, example, place, problem, where
from nnac.plan import Weights


class ContradictoryMethods(Rule):
    """Two settings of one tensor that cannot both be meant.

    MRACos pulls weights to centroids, so there must be a codebook; ACosR to a uniform grid; pruning needs a level at
    zero; a codebook stream needs a codebook of at most 6 bits; frames of one entry point are computed together or not.
    Change one of the two.
    """

    code = "contradictory-methods"
    example = example("layers encoder.lstm[0].** {\n  weights     int8 per_channel\n  regularise  "
                      "mracos(strength=1e-4)\n}")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        for setting, clash in CLASHES:
            yield from self.pairs(r, setting, clash)
        yield from self.frames(r)

    def pairs(self, r: Resolution, setting: str,
                                                                 clash: Callable[[Any, Weights], tuple[str,
                                                                 str] | None]) -> Iterator[Diagnostic]:
        """Each setting with the weights of the same site."""
        assert r.sites is not None
        for decided, sites, value in by_entry(r, setting, r.sites.leaves):
            if value is None or decided is None:
                continue
            seen: dict[tuple[str, int], list[int]] = {}
            for i in sites:
                found = clash(value, r.values["weights"][i])
                if found is not None:
                    winner = r.winners["weights"].get(i)
                    seen.setdefault((found[0], id(winner[1]) if winner else 0), []).append(i)
            for (message, _), at in seen.items():
                weights = r.values["weights"][at[0]]
                help = (clash(value, weights) or ("", ""))[1]
                winner = r.winners["weights"].get(at[0])
                related = (Label(r.entry_span(r.rules[winner[0]], winner[1]), f"the weights of {where(r, at)}"),
                           ) if winner else ()
                yield problem(self.code, place(r, decided), message,
                              "" if winner else f"the weights of {where(r, at)} are {weights} by default",
                              help, related=related)

    def frames(self, r: Resolution) -> Iterator[Diagnostic]:
        groups = list(by_entry(r, "frames"))
        values = {v for _, _, v in groups}
        if len(values) > 1:
            least = min(groups, key=lambda g: (g[0] is None, len(g[1])))
            other = next(g for g in groups if g[2] != least[2])
            yield problem(self.code, place(r, least[0]),
                          "the layers of the encoder are computed together: `frames` is the same for all",
                          f"{least[2]} for {where(r, least[1])}, but {other[2]} for {where(r, other[1])}",
                          "write it in a rule for `**`: `joint.encoder` is computed with the encoder")


def _regularise(how: Any, w: Weights) -> tuple[str, str] | None:
    if w.method is None:
        return f"`{how.keyword}` has nothing to pull real weights to", "choose an integer width, or `regularise none`"
    codebook = type(w.method).codebook
    if how.keyword == "mracos" and not codebook:
        return f"`mracos` pulls to centroids, but `{w.method.keyword}` has none", \
            "use `acosr`, its uniform case, or a codebook: `weights lloyd_max(4)`"
    if how.keyword == "acosr" and codebook:
        return f"`acosr` pulls to a uniform grid, but `{w.method.keyword}` has centroids", "use `mracos`"
    if how.keyword == "acosr" and type(w.method).own_bounds:
        return (f"`acosr` pulls to the nearest level of a uniform grid, but `{w.method.keyword}` has bounds of its "
                f"own",
             "leave it out, or use a codebook and `mracos`: `weights lloyd_max(2)`")
    return None


def _round(how: Any, w: Weights) -> tuple[str, str] | None:
    if w.method is None:
        return f"`{how.keyword}` has no levels to round real weights to", "choose an integer width, or `round none`"
    return None


def _harden(how: Any, w: Weights) -> tuple[str, str] | None:
    if w.method is None:
        return "there is nothing to harden real weights to", "choose an integer width, or `harden none`"
    return None


def _sparsity(how: Any, w: Weights) -> tuple[str, str] | None:
    if w.method is not None and w.bits == 1:
        return ("pruned weights are zero, but 1-bit weights have no zero",
                "prune with two bits or more, or `sparsity none`")
    if w.method is not None and getattr(w.method, "zero_aligned", True) is False:
        return (f"pruned weights are zero, but `{w.method.keyword}(zero_aligned=false)` has no level at zero",
                "write `zero_aligned=true`")
    return None


def _codec(codec: str, w: Weights) -> tuple[str, str] | None:
    codebook = w.method is not None and type(w.method).codebook
    if codec == "codebook" and not codebook:
        return (f"a codebook stream needs a codebook, but the weights are {w}",
                "choose `codec packed`, or weights with centroids")
    if codec == "codebook" and w.bits > 6:
        return f"a codebook stream holds at most 6 bits, not {w.bits}", "choose `codec raw` or fewer bits"
    if codec == "packed" and w.multiplied_bits > 7:
        why = (", whose centroids are int8" if codebook else ", whose groups share one int8 scale a row"
               if w.granularity.kind == "group" else "")
        return f"a packed stream holds integers of at most 7 bits, but the weights are {w}{why}", \
            "choose `codec codebook`" if codebook else "choose `codec auto`, or fewer bits and no groups"
    return None


CLASHES: tuple[tuple[str, Callable[[Any, Weights], tuple[str, str] | None]], ...] = (
    ("round", _round), ("regularise", _regularise), ("harden", _harden), ("sparsity", _sparsity), ("codec", _codec))


class PointlessCombination(Rule):
    """Two settings that are possible together but work against each other, or where one buys nothing.

    GQ is built to need neither regulariser nor hard compressor; a block bitmap without pruning only adds bits; blocks
    that are not a multiple of 16 are stored but not skipped; an embedding is read a row at a time and never decoded, so
    nothing makes its rows shorter.
    """

    code = "pointless-combination"
    example = example("layers encoder.lstm[0].** { codec block_bitmap }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        assert r.sites is not None
        for setting in ("regularise", "harden", "codec", "sparsity"):
            for decided, sites, value in by_entry(r, setting, r.sites.leaves):
                if decided is None or value is None:
                    continue
                words: dict[tuple[str, str], list[int]] = {}
                for i in sites:
                    if (found := self.why(setting, value, r, i)) is not None:
                        words.setdefault(found, []).append(i)
                for (message, help), at in words.items():
                    yield problem(self.code, place(r, decided), message, where(r, at), help, severity="warning")
        yield from self.embeddings(r)

    def embeddings(self, r: Resolution) -> Iterator[Diagnostic]:
        """Settings of rules that were written for embeddings alone."""
        assert r.sites is not None and r.model is not None
        for setting in ("weights", "round", "codec", "sparsity"):
            for decided, sites, value in by_entry(r, setting, r.sites.leaves):
                if decided is None or any(not r.model.layer_of(p).operator.by_index
                                          for p in r.sites.named(decided[1].mask)):
                    continue
                if {"weights": lambda v: v.bits < 8, "codec": lambda v: v != "auto",
                    "sparsity": lambda v: v is not None, "round": lambda v: v is not None}[setting](value):
                    does = "has no product to keep" if setting == "round" else "makes them no shorter"
                    yield problem(self.code, place(r, decided),
                                  f"an embedding is kept as rows of integers, one read for each label: `{setting}` "
                                  f"{does}", where(r, sites),
                                  "leave it at `int8`, and save bytes elsewhere", severity="warning")

    @staticmethod
    def why(setting: str, value: Any, r: Resolution, i: int) -> tuple[str, str] | None:
        w: Weights = r.values["weights"][i]
        sparse = r.values["sparsity"][i]
        if setting == "regularise" and not value.pulls:
            codec = r.values["codec"][i]
            if codec in ("raw", "packed", "codebook"):
                return (f"`codec {codec}` takes as many bits whatever the codes are, so `{value.keyword}` saves none",
                        "`codec auto`, or `regularise none`")
            return None
        if setting in ("regularise", "harden") and w.method is not None and w.method.keyword == "gq":
            return (f"GQ anneals its weights to the centroids by itself; `{value.keyword}` pulls a second time",
                    f"`{setting} none`")
        if setting == "codec" and value in ("block_bitmap", "zero_run") and sparse is None:
            return (f"`codec {value}` stores zeros cheaply, but these weights are not pruned",
                    "`codec auto`, or add `sparsity`")
        if setting == "sparsity" and getattr(value, "block", 1) > 1 and value.block % 16:
            return f"the machine skips zero blocks of 16, not of {value.block}", "write `block=16`"
        return None
