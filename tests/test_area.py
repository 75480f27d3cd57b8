"""What `make area` places: any module of the core between two chains of registers."""

from __future__ import annotations

import pytest

pytest.importorskip("amaranth", reason="the core is described in Amaranth (extra rtl)")

from benchmarks.area import block_rams, ports_of, scan

NETLIST = r"""
module \core
  wire width 1 input 0 \clk
end
module \core.sum
  wire width 8 input 0 \port$3$0
  wire width 1 input 1 \clk
  wire width 4 \inner
  wire width 2 output 3  signed \total
  wire width 1 output 2 \carry
end
"""


def test_a_module_s_ports_are_read_from_the_netlist_and_chained():
    ports = ports_of(NETLIST, "core.sum")
    assert (ports.given, ports.taken, ports.clocks) == ({"port$3$0": 8}, {"total": 2, "carry": 1}, ("clk",))
    assert ports.chains == dict(registers=11, luts=3)
    text = scan("core.sum", ports)
    assert r"\core.sum part (.clk(clk), .\port$3$0 (feed[7:0]), .\total (said[1:0]), .\carry (said[2:2]));" in text
    assert "reg [7:0] feed; reg [2:0] held;" in text


def test_block_rams_of_a_memory_are_those_of_the_best_shape():
    assert block_rams(512, 36) == 1 and block_rams(2048, 8) == 1 and block_rams(1026, 16) == 2
