"""SCALE-Sim's cycles of one matrix-vector product on a systolic array.  Run by an interpreter that has `scalesim`
(3.0.0), not by ours.

usage: python peer_scalesim.py INPUTS OUTPUTS ARRAY {os|ws}        prints one JSON object
"""

import contextlib
import csv
import io
import json
import sys
import tempfile
import time

CONFIG = """[general]
run_name = r
[architecture_presets]
ArrayHeight: {array}
ArrayWidth: {array}
IfmapSramSzkB: 256
FilterSramSzkB: 256
OfmapSramSzkB: 256
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth : 16
Dataflow : {flow}
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 16
IfmapSRAMBankNum: 16
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 16
FilterSRAMBankNum: 16
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def main():
    from scalesim.scale_sim import scalesim

    inputs, outputs, array, flow = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    folder = tempfile.mkdtemp(prefix="scalesim_")
    for name, text in (("c.cfg", CONFIG.format(array=array, flow=flow)),
                       ("t.csv", f"Layer,M,N,K,\nfc,1,{outputs},{inputs},\n"), ("l.csv", "x,\n")):
        with open(f"{folder}/{name}", "w") as f:
            f.write(text)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        s = scalesim(save_disk_space=True, verbose=True, config=f"{folder}/c.cfg", topology=f"{folder}/t.csv",
                     layout=f"{folder}/l.csv",
                     input_type_gemm=True)
        s.run_scale(top_path=f"{folder}/out")
    seconds = time.perf_counter() - start
    with open(f"{folder}/out/r/COMPUTE_REPORT.csv") as f:
        row = {k.strip(): v for k, v in next(iter(csv.DictReader(f, skipinitialspace=True))).items() if k and k.strip()}
    cycles = float(row["Total Cycles"])
    print(json.dumps({"cycles": cycles, "wall_s": round(seconds, 2), "cycles_per_s": round(cycles / seconds)}))


main()
