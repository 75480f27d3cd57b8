"""Checkpoints of other toolkits: their tensors, under their own names, become a model that nnac compiles.

    files     tensors of `.pt`, `.ckpt`, `.pth` (weights alone: no code of its author runs), `.nemo`, `.safetensors`
    maps      one small TOML file a toolkit: which tensors are which layers, and how the three networks go
    network   the float networks of a map, as PyTorch modules whose parameters have the toolkit's names
    model     the whole: read like any model of a user's own (`nnac.capture`), saved for `nnac train --float`

What no map says is refused by the names of its tensors.
"""
