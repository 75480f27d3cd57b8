"""Selectors: which sites of a model a rule means.

The sites form a trie by the steps of their paths; a set of sites is an integer with one bit a site, so that thousands
of rules over hundreds of sites stay cheap.  A rule that selects a site means everything below it too:
``encoder.lstm[0]`` its kernels and gates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache

from attrs import define, evolve, field, frozen

from nnac.diagnostics import near
from nnac.language import syntax as s
from nnac.model.graph import STEP, ModelGraph

Key = tuple[str, int | None]


@define(eq=False)
class Node:
    """A place in the trie.  ``bit`` is 0 where no site ends; ``mask`` has the bits of all sites at and below it."""

    key: Key
    path: str
    bit: int = 0
    mask: int = 0
    children: dict[Key, Node] = field(factory=dict)
    by_name: dict[str, list[Node]] = field(factory=dict)


@frozen(eq=False)
class Sites:
    """The sites of a model, numbered in its order.  ``layers``, ``kernels``, ``gates``, ``leaves`` are masks; leaves
    hold weights."""

    paths: tuple[str, ...]
    root: Node
    layers: int
    kernels: int
    gates: int
    leaves: int

    @classmethod
    def of(cls, model: ModelGraph) -> Sites:
        root, layers, kernels, gates, leaves = Node(("", None), ""), 0, 0, 0, 0
        paths: list[str] = []

        def add(path: str) -> int:
            bit = 1 << len(paths)
            paths.append(path)
            trail, node = [root], root
            for step in path.split("."):
                match = STEP.match(step)
                assert match, f"a site with a strange name: {path}"
                key = (match[1], int(match[2]) if match[2] else None)
                if key not in node.children:
                    child = Node(key, f"{node.path}.{step}" if node.path else step)
                    node.children[key] = child
                    node.by_name.setdefault(key[0], []).append(child)
                node = node.children[key]
                trail.append(node)
            node.bit = bit
            for n in trail:
                n.mask |= bit
            return bit

        for layer in model:
            layers |= add(layer.path)
            for kernel in layer.kernels:
                bits = [add(p) for p in kernel.sites]
                kernels |= bits[0]
                gates |= sum(bits[1:])
                leaves |= sum(bits[1:]) or bits[0]
        return cls(tuple(paths), root, layers, kernels, gates, leaves)

    @cached_property
    def number(self) -> dict[str, int]:
        """Path -> its bit."""
        return {p: i for i, p in enumerate(self.paths)}

    @cached_property
    def everything(self) -> int:
        return self.root.mask

    def named(self, mask: int) -> list[str]:
        """The paths of a set, in the model's order."""
        return [self.paths[i] for i in bits(mask)]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every step that occurs anywhere, without its index."""
        seen: dict[str, None] = {}
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            for child in node.children.values():
                seen.setdefault(child.key[0])
                waiting.append(child)
        return tuple(seen)


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits set, from the lowest."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def matched(sites: Sites, selector: s.Selector) -> int:
    """The sites that a selector means, those below its own included."""
    mask = 0
    for node in _nodes(sites, selector.steps):
        if node.bit:
            mask |= node.mask
    return mask


def _nodes(sites: Sites, steps: tuple[s.Step, ...]) -> list[Node]:
    here = [sites.root]
    for step in steps:
        here = _advance(here, step)
        if not here:
            break
    return here


def _advance(here: list[Node], step: s.Step) -> list[Node]:
    """One step from each of ``here``; each node once."""
    if step.deep:
        found: dict[int, Node] = {}
        waiting = list(here)
        while waiting:
            node = waiting.pop()
            if id(node) not in found:
                found[id(node)] = node
                waiting.extend(node.children.values())
        return list(found.values())
    out: list[Node] = []
    for node in here:
        if not step.names:
            out.extend(node.children.values())
            continue
        for name, index in step.names:
            if index is None:
                child = node.children.get((name.text, None))
                if child is not None:
                    out.append(child)
            elif index.low is not None and index.low == index.high:
                child = node.children.get((name.text, index.low))
                if child is not None:
                    out.append(child)
            else:
                out.extend(c for c in node.by_name.get(name.text, ()) if c.key[1] is not None and (
                    index.low is None or (index.high is not None and index.low <= c.key[1] <= index.high)))
    return out if len(out) < 2 else list({id(n): n for n in out}.values())


@frozen
class Miss:
    """A part of a selector that means nothing: the node to point at, what is wrong, what to write instead of that
    node."""

    node: s.Node
    message: str
    help: str
    fix: str | None = None
    slice_only: bool = False        # a slice that reaches beyond what exists


def misses(sites: Sites, selector: s.Selector) -> list[Miss]:
    """Every part of ``selector`` that selects nothing: the whole, one alternative of several, the end of a slice."""
    if not matched(sites, selector):
        return _one_after_another(sites, selector)
    found: list[Miss] = []
    for k, step in enumerate(selector.steps):
        for name, index in step.names:
            trial = lambda n, i, k=k, step=step: matched(  # noqa: E731
                sites, evolve(selector, steps=(*selector.steps[:k], evolve(step, names=((n, i),)),
                                               *selector.steps[k + 1:])))
            if len(step.names) > 1 and not trial(name, index):
                one = evolve(selector, steps=(*selector.steps[:k], evolve(step, names=((name, index),)),
                                              *selector.steps[k + 1:]))
                miss = _why(sites, one)
                found.append(evolve(miss, node=miss.node if isinstance(miss.node, s.Name) else name))
            elif index is not None and index.high is not None and index.low != index.high and not trial(
                    name, evolve(index, low=index.high)):
                there = [c.key[1] for n in _nodes(sites, selector.steps[:k]) for c in n.by_name.get(name.text, ())
                         if c.key[1] is not None]
                last = max(there)
                found.append(Miss(index, f"`{name.text}` has no index {index.high}",
                                  f"the last is `{name.text}[{last}]`",
                                  f"[{index.low}..{last}]", slice_only=True))
    return found


def _one_after_another(sites: Sites, selector: s.Selector) -> list[Miss]:
    """What is wrong with a selector that means nothing; once a part is read as the nearest name, what is wrong behind
    it."""
    found: list[Miss] = []
    for _ in selector.steps:
        miss = _why(sites, selector)
        found.append(miss)
        k = next((k for k, step in enumerate(selector.steps) if any(n is miss.node for n, _ in step.names)), None)
        if k is None or not miss.fix or "[" in miss.fix:
            return found
        step = selector.steps[k]
        names = tuple((evolve(n, text=miss.fix), i) if n is miss.node else (n, i) for n, i in step.names)
        selector = evolve(selector, steps=(*selector.steps[:k], evolve(step, names=names), *selector.steps[k + 1:]))
        if matched(sites, selector):
            return found + misses(sites, selector)
    return found


def _why(sites: Sites, selector: s.Selector) -> Miss:
    """Where a selector that means nothing goes wrong, and the nearest one that means something."""
    here = [sites.root]
    for k, step in enumerate(selector.steps):
        there = _advance(here, step)
        if there:
            here = there
            continue
        if not step.names:
            return Miss(step, f"`{here[0].path}` has no parts" if here[0].path else "nothing is below",
                        f"write `{here[0].path}`")
        name, index = step.names[0]
        candidates = [c for n in here for c in n.children.values()]
        prefix = "".join("**." if p.deep else f"{_spelled(p)}." for p in selector.steps[:k])
        same = sorted({c.key[1] for c in candidates if c.key[0] == name.text and c.key[1] is not None})
        if same and index is None:
            return Miss(name, f"`{prefix}{name.text}` needs an index",
                        f"write `{name.text}[*]` for all, or `{name.text}[{same[0]}]`",
                        f"{name.text}[*]")
        if same and index is not None:
            return Miss(index, f"`{prefix}{name.text}` has no index {index.low}",
                        f"there are `{name.text}[{same[0]}]` to `{name.text}[{same[-1]}]`")
        if any(c.key[0] == name.text for c in candidates):
            return Miss(index or name, f"`{prefix}{name.text}` has no index", f"write `{prefix}{name.text}`", ""
                        if index else None)
        names = list(dict.fromkeys(c.key[0] for c in candidates))
        close = near(name.text, names)
        if close:
            return Miss(name, f"no layer matches `{prefix}{name.text}`", f"did you mean `{prefix}{close[0]}`?"
                        + (f"  (also: {', '.join(n for n in names if n != close[0])})" if len(names) > 1 else ""),
                        close[0])
        deeper = next((p for last, p in _last_steps(sites).items() if name.text in last), None)
        at = f"`{prefix[:-1]}` has: " if prefix else "there are: "
        help = f"{at}{', '.join(names)}" if names else f"`{prefix[:-1]}` has no parts"
        if deeper is not None and not prefix:
            help = f"did you mean `{deeper}`?  ({help})"
        return Miss(name, f"no layer matches `{prefix}{name.text}`", help)
    parts = ", ".join(dict.fromkeys(c.key[0] for n in here[:1] for c in n.children.values()))
    whole = ".".join("**" if p.deep else _spelled(p) for p in selector.steps)
    return Miss(selector, f"`{whole}` is not a layer, only a part of names",
                f"write `{whole}.**` for all below it ({parts})",
                f"{whole}.**")


@lru_cache(maxsize=4)
def _last_steps(sites: Sites) -> dict[str, str]:
    """The last step of a path -> the first path, layers first, that has it; paths without numbers."""
    paths = (re.sub(r"\[\d+\]", "[*]", path) for path in sorted(sites.paths, key=lambda p: p.count(".")))
    out: dict[str, str] = {}
    for path in paths:
        out.setdefault(path.split(".")[-1], path)
    return out


def _spelled(step: s.Step) -> str:
    if step.deep:
        return "**"
    if not step.names:
        return "*"
    one = [n.text + _index(i) for n, i in step.names]
    return one[0] if len(one) == 1 else "{" + ", ".join(one) + "}"


def _index(index: s.Index | None) -> str:
    if index is None:
        return ""
    if index.low is None:
        return "[*]"
    return f"[{index.low}]" if index.low == index.high else f"[{index.low}..{index.high}]"


def spelled(selector: s.Selector) -> str:
    """A selector as the language writes it."""
    return ".".join(_spelled(step) for step in selector.steps)
