"""Why a setting is what it is: the rules that spoke about it, in order, as lines of text."""

from __future__ import annotations

from nnac.plan import Plan


def chains(plan: Plan, paths: list[str]) -> list[str]:
    """For each site, each setting with its value, and the rules that spoke about it; the last one won."""
    lines: list[str] = []
    for path in paths:
        site = plan[path]
        if site.kind == "gate" and len(paths) > 1 and site.settings == plan[path.rpartition(".gate.")[0]].settings:
            continue
        lines.append(path)
        for name, value in site.settings.items():
            lines.append(f"  {name} {value}")
            chain = plan.origin(path, name)
            for origin in chain[:-1]:
                lines.append(f"      was    {origin}")
            lines.append(f"      wins   {chain[-1]}")
    return lines
