"""Published modules, as they stand: those that are taken are right to the integer on the emulator and as ONNX, the
others are refused at a line."""

from __future__ import annotations

import pytest

from tests import published

REFUSED = {"attention encoder", "torchaudio Emformer",
           "icefall Conformer layer", "DTLN, whole", "DeepSpeech2, whole"}
QUICK = {"MLPerf RNN-T, whole", "torchaudio predictor", "SpeechBrain LiGRU",
         "DTLN stateful block", "MS ELL", "DeepSpeech2 BatchRNN", "DTLN, whole"}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow)
                                  for n in published.MODULES])
def test_a_published_module_is_taken_and_right_or_refused_at_a_line(name, tmp_path):
    pytest.importorskip("onnxruntime")
    from benchmarks.bench_import import module

    row = module(name, tmp_path)
    assert bool(row.said) == (name in REFUSED), row.said
    if row.said:
        assert row.placed, row.said
    else:
        assert row.compared and row.onnx_compared and not row.different and not row.onnx_different
