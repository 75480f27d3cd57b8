"""Vela's own estimate of one fully connected layer.  Run by an interpreter that has `ethos-u-vela` (which brings
flatbuffers); not by ours.

usage: python peer_vela.py INPUTS OUTPUTS {int8|codebook16}        prints one JSON object
The layer is written as a TFLite file with Vela's generated classes; Vela runs with Arm's reference files for
Ethos-U65-512 (DRAM 3.75 GB/s).
"""

import csv
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

import flatbuffers
import numpy as np
from ethosu.vela.tflite import (
    Buffer,
    BuiltinOperator,
    BuiltinOptions,
    FullyConnectedOptions,
    Model,
    Operator,
    OperatorCode,
    QuantizationParameters,
    SubGraph,
    Tensor,
    TensorType,
)

TYPE = TensorType.TensorType


def vector(builder, start, items, put):
    start(builder, len(items))
    for item in reversed(items):
        put(item)
    return builder.EndVector()


def fully_connected(inputs, outputs, kind, path):
    """One int8 FULLY_CONNECTED operator with random weights."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((outputs, inputs))
    w = np.clip(np.round(g * 127 / 4), -127, 127) if kind == "int8" else np.clip(np.round(g * 7 / 3), -8, 7) * 15
    data = [b"", w.astype(np.int8).tobytes(), rng.integers(-1000, 1000, outputs).astype(np.int32).tobytes()]
    tensors = [("x", [1, inputs], TYPE.INT8, .05, 0), ("w", [outputs, inputs], TYPE.INT8, .01, 1),
               ("b", [outputs], TYPE.INT32, .0005, 2),
               ("y", [1, outputs], TYPE.INT8, .1, 0)]
    b = flatbuffers.Builder(1 << 20)
    buffers = []
    for part in data:
        v = b.CreateByteVector(part) if part else None
        Buffer.BufferStart(b)
        if v is not None:
            Buffer.BufferAddData(b, v)
        buffers.append(Buffer.BufferEnd(b))
    made = []
    for name, shape, kind_, scale, buffer in tensors:
        text = b.CreateString(name)
        dims = vector(b, Tensor.TensorStartShapeVector, shape, b.PrependInt32)
        scales = vector(b, QuantizationParameters.QuantizationParametersStartScaleVector, [scale], b.PrependFloat32)
        zeros = vector(b, QuantizationParameters.QuantizationParametersStartZeroPointVector, [0], b.PrependInt64)
        QuantizationParameters.QuantizationParametersStart(b)
        QuantizationParameters.QuantizationParametersAddScale(b, scales)
        QuantizationParameters.QuantizationParametersAddZeroPoint(b, zeros)
        q = QuantizationParameters.QuantizationParametersEnd(b)
        Tensor.TensorStart(b)
        Tensor.TensorAddShape(b, dims); Tensor.TensorAddType(b, kind_); Tensor.TensorAddBuffer(b, buffer)
        Tensor.TensorAddName(b, text); Tensor.TensorAddQuantization(b, q)
        made.append(Tensor.TensorEnd(b))
    ins = vector(b, Operator.OperatorStartInputsVector, [0, 1, 2], b.PrependInt32)
    outs = vector(b, Operator.OperatorStartOutputsVector, [3], b.PrependInt32)
    FullyConnectedOptions.FullyConnectedOptionsStart(b)
    options = FullyConnectedOptions.FullyConnectedOptionsEnd(b)
    Operator.OperatorStart(b)
    Operator.OperatorAddOpcodeIndex(b, 0); Operator.OperatorAddInputs(b, ins); Operator.OperatorAddOutputs(b, outs)
    Operator.OperatorAddBuiltinOptionsType(b, BuiltinOptions.BuiltinOptions.FullyConnectedOptions)
    Operator.OperatorAddBuiltinOptions(b, options)
    operators = [Operator.OperatorEnd(b)]
    code = BuiltinOperator.BuiltinOperator.FULLY_CONNECTED
    OperatorCode.OperatorCodeStart(b)
    OperatorCode.OperatorCodeAddDeprecatedBuiltinCode(b, code); OperatorCode.OperatorCodeAddBuiltinCode(b, code)
    OperatorCode.OperatorCodeAddVersion(b, 4)
    codes = [OperatorCode.OperatorCodeEnd(b)]
    put = b.PrependUOffsetTRelative
    t = vector(b, SubGraph.SubGraphStartTensorsVector, made, put)
    i = vector(b, SubGraph.SubGraphStartInputsVector, [0], b.PrependInt32)
    o = vector(b, SubGraph.SubGraphStartOutputsVector, [3], b.PrependInt32)
    p = vector(b, SubGraph.SubGraphStartOperatorsVector, operators, put)
    name = b.CreateString("main")
    SubGraph.SubGraphStart(b)
    SubGraph.SubGraphAddTensors(b, t); SubGraph.SubGraphAddInputs(b, i); SubGraph.SubGraphAddOutputs(b, o)
    SubGraph.SubGraphAddOperators(b, p); SubGraph.SubGraphAddName(b, name)
    graphs = vector(b, Model.ModelStartSubgraphsVector, [SubGraph.SubGraphEnd(b)], put)
    listed = vector(b, Model.ModelStartOperatorCodesVector, codes, put)
    stored = vector(b, Model.ModelStartBuffersVector, buffers, put)
    text = b.CreateString("bench")
    Model.ModelStart(b)
    Model.ModelAddVersion(b, 3); Model.ModelAddOperatorCodes(b, listed); Model.ModelAddSubgraphs(b, graphs)
    Model.ModelAddDescription(b, text); Model.ModelAddBuffers(b, stored)
    b.Finish(Model.ModelEnd(b), file_identifier=b"TFL3")
    with open(path, "wb") as f:
        f.write(b.Output())


def main():
    inputs, outputs, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        fully_connected(inputs, outputs, kind, f"{folder}/fc.tflite")
        vela = os.path.join(os.path.dirname(sys.executable), "vela")
        start = time.perf_counter()
        subprocess.run([vela, f"{folder}/fc.tflite", "--accelerator-config", "ethos-u65-512", "--config",
                        "Arm/vela.ini", "--system-config",
                        "Ethos_U65_High_End", "--memory-mode", "Dedicated_Sram_512KB", "--output-dir", f"{folder}/out"],
                       check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        with open(glob.glob(f"{folder}/out/*summary*.csv")[0]) as f:
            row = next(iter(csv.DictReader(f)))
    print(json.dumps({"cycles": float(row["cycles_total"]), "clock": float(row["core_clock"]),
                      "wall_s": round(seconds, 2)}))


main()
