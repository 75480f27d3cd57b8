"""Graphs of integers as ONNX: the same arithmetic, by the standard's integer operators alone.

    ops/*.py `integers` ──called on symbols──▶ tape ──▶ ONNX model ──▶ onnxruntime (`nnac.executors.onnx`), a phone

Nothing about an operator is said here: `Symbol` is one more carrier of `nnac.arith`, beside NumPy and torch, and
calling an operator's own `integers` with symbols writes down what it does.  So an operator that is added can be
exported, and what is exported cannot part from what is evaluated.

`symbol`  integers that are yet to come, and the tape that remembers what was done with them
`model`   one step of an entry as an ONNX model
"""
