"""The float recognisers, by name: the networks that policies start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnac.model.conformer_torch import Conformer, ConformerConfig
from nnac.model.rnnt_torch import Rnnt, RnntConfig

Config = RnntConfig | ConformerConfig
_CONFIGS: dict[str, type[RnntConfig] | type[ConformerConfig]] = {"rnnt": RnntConfig, "conformer": ConformerConfig}
_NETWORKS: dict[type, type[Rnnt]] = {RnntConfig: Rnnt, ConformerConfig: Conformer}
NAMES = tuple(_CONFIGS)


def default(name: str) -> Config:
    """The sizes of the network called ``name``, unless somebody says others."""
    return _CONFIGS[name]()


def config_from_json(data: Any) -> Config:
    """What ``to_json`` of either gave; without a word of which, an RNN-T's.  ValueError: what is wrong with it."""
    name = data.get("network", "rnnt") if isinstance(data, Mapping) else "rnnt"
    if name not in _CONFIGS:
        raise ValueError(f"model: no network is called {str(name)[:40]!r} (there are: {', '.join(NAMES)})")
    return _CONFIGS[name].from_json(data)


def network(config: Config) -> Rnnt:
    """A new network of these sizes."""
    return _NETWORKS[type(config)](config)             # type: ignore[arg-type]
