"""Faults planted in the core: all in one build, each switched on by a number at an extra input port.

A fault is named by the signal it sits on, in the flattened Verilog, and by what it makes of the signal's expression.
`plant` rewrites the text; ``mutant`` = 0 is the core as it is.
"""

from __future__ import annotations

import re

OFF, ON, MORE, FLIP = "1'b0", "1'b1", "{} + 1", "{} ^ 1"

# (what is wrong, the signal, what becomes of it)
FAULTS: tuple[tuple[str, str, str], ...] = (
    # control: queues, semaphores, fetch
    ("VX takes an instruction while it is busy", "control.ready_VX", ON),
    ("MV takes an instruction while it is busy", "control.ready_MV", ON),
    ("DA takes an instruction while it is busy", "control.ready_DA", ON),
    ("DW takes a stream that the ring has no room for", "control.ready_DW", ON),
    # a bit each, by `tests.rtl_programs.PAIRS`: of the others a unit waits for some never
    ("DA does not wait for VX", "control.there_DA [10]", ON),
    ("MV does not wait for DW", "control.there_MV [1]", ON),
    ("VX does not wait for MV", "control.there_VX [8]", ON),
    ("VX's queue is a place shorter", "control.push_VX", "{} & (\\control.queued_VX  != 3)"),
    ("MV's queue is a place shorter", "control.push_MV", "{} & (\\control.queued_MV  != 3)"),
    ("DW's queue is a place shorter", "control.push_DW", "{} & (\\control.queued_DW  != 3)"),
    ("DA's queue is a place shorter", "control.push_DA", "{} & (\\control.queued_DA  != 3)"),
    ("a mark takes two cycles", "control.time", "{} + 1"),
    # bus, streams, DMA
    ("a stream that shares a burst reads it again", "stream.shared", OFF),
    ("every stream is taken to share its first burst", "stream.shared", ON),
    ("the shared burst does not reach the ring", "stream.from_held", OFF),
    ("DMA masks nothing", "dma.inside", "{} | 1"),
    ("a gather is taken for a load", "dma.is_gather", OFF),
    ("a store writes A", "dma.writes", OFF),
    # decoder
    ("a step less", "decoder.all_steps", "{} - 1"),
    ("a step more", "decoder.all_steps", MORE),
    ("the tail of tANS is read as steps", "decoder.tail", OFF),
    ("all of tANS is read as tail", "decoder.tail", ON),
    ("the window begins a bit later", "decoder.next_p", MORE),
    ("symbols are asked for in no step", "decoder.ask", OFF),
    ("no bitmap is seen", "decoder.masked", OFF),
    ("each strip has one word", "decoder.same", OFF),
    ("bitmaps are not filled up to bytes", "decoder.to_byte", "3'd0"),
    ("the bits of the bitmap's even rows are lost", "decoder.write__en", OFF),
    ("a run is one longer", "decoder.ahead", MORE),
    ("the place after a pair is the pair's", "decoder.after", "{} - 1"),
    ("a listed value is the next one", "decoder.from_list_0", FLIP),
    ("a packed weight is not extended", "decoder.extended_0", "{} & 8'h7f"),
    ("ranks turn their sign", "decoder.half_0", MORE),
    ("the logarithm of y is one more", "decoder.log_weights_1", MORE),
    ("states are not reversed at the low bit", "decoder.reversed_0", FLIP),
    ("a token's rank is the next", "decoder.rank_of_0", MORE),
    ("a token has an extra bit less", "decoder.extra_bits_0", "3'd0"),
    ("the tail's fields are a bit wider", "decoder.rank_bits", MORE),
    ("a codebook's index is a bit narrower", "decoder.codebook_bits", "{} - 1"),
    ("lane 2 takes its bits from one further", "decoder.at_2", MORE),
    ("extra bits of lane 1 come from one further", "decoder.behind_1", MORE),
    ("the decoder's columns count wrong", "decoder.new_width", MORE),
    # matrix
    ("a word too many", "matrix.busy", MORE),
    ("low bytes of weights are signed", "matrix.low_weight", OFF),
    ("all weights are int16", "matrix.int16", ON),
    ("high bytes count as low", "matrix.scale", "2'd0"),
    ("lane 3's weights have the other sign", "matrix.weight_3 [8]", FLIP),
    ("lane 5 drops a product's last bit", "matrix.product_0_5", "{} & ~18'd1"),
    # vector
    ("an instruction is a cycle longer", "vector.cycles", MORE),
    ("groups are issued every cycle", "vector.every", "3'd1"),
    ("the last group is taken for whole", "vector.byte_count", MORE),
    ("all results are a byte", "vector.a16", OFF),
    ("double rounding is single", "vector.double", OFF),
    ("the rounding of a double is forgotten", "vector.lane_0.round.more", OFF),
    ("a sigmoid is odd", "vector.complement", OFF),
    ("tanh is complemented", "vector.complement", ON),
    ("the cell is doubled", "vector.lane_1.new", MORE),
    ("the second product's low part is one more", "vector.lane_0.second_low", "{} + (1 << 23)"),
    ("|-32768| is not limited", "vector.lane_0.table.absolute", "{} & 17'h7ffe"),
    ("the output gate multiplies nothing", "vector.output_times_tanh", OFF),
    ("h is not brought to its scale", "vector.product_again", OFF),
    ("d is not squared", "vector.times_itself", OFF),
    ("the root is forgotten", "vector.times_root", OFF),
    ("the greatest is the last of equals", "vector.where_2_0", FLIP),
    ("the greatest of a pair is the least", "vector.most_2_0", FLIP),
    ("a sum misses an element", "vector.term_0", "64'd0"),
    ("a root's exponent is odd", "vector.root.e", MORE),
    ("a root's product is one more", "vector.root.product", "{} + (1 << 33)"),
    ("pass 2 is not begun in time", "vector.t0_last", OFF),
    ("int32 results are requantised", "vector.times_one", OFF),
    # vector: rings, attention, convolution, log-softmax, GRU
    ("a ring is read from its second chunk", "vector.rings.oldest", MORE),
    ("a ring that was filled once is taken for less", "vector.rings.there", "{} - 1"),
    ("a ring's count is one more", "vector.rings.more", MORE),
    ("the rows begin a byte later", "vector.rings.oldest_at", MORE),
    ("the first tap is a byte further", "vector.rings.first_tap", MORE),
    ("keys that are not there are scored", "vector.rings.hidden", OFF),
    ("an int16 probability is followed a byte further", "vector.rings.size", "2'd1"),
    ("VX's count goes on while there are beats", "vector.holds", OFF),
    ("a score is one more before it is requantised", "vector.dot", MORE),
    ("lane 1's running sum is one more", "vector.lane_1.run", MORE),
    ("a sum goes on from the last", "vector.afresh", OFF),
    ("vectors of results are not aligned", "vector.vector_ends", OFF),
    ("a sum's logarithm is one more", "vector.root.logarithm", "{} + (1 << 4)"),
    ("1 - z times n is z's", "vector.y_times_rest", OFF),
    ("a GRU's state is one more", "vector.lane_2.blend", "{} + (1 << 15)"),
    # whose bits Yosys assigns in parts: a fault on the part that only extends a sign, or is constant, changes nothing
    ("a burst lands a burst further in the ring", "stream.at", MORE),
    ("a load lands a burst further in A", "dma.offset", "{} + 4"),
    ("the first pair lands a lane further", "decoder.place_0", MORE),
    ("the new cell is one more", "vector.lane_2.total", MORE),
    ("the high part of a product is one more", "vector.lane_0.large_high", MORE),
    ("the low part of a product is 2^20 more", "vector.lane_3.large_low", "{} + (1 << 20)"),
    ("the root is interpolated to an entry's neighbour", "vector.root.high", FLIP),
)


def assignment(text: str, name: str) -> re.Match[str]:
    """The assignment that gives a signal most of the bits that another expression reads.  ValueError: there is none.

    Yosys assigns a signal in parts: bits that only extend a sign, are constant, or are read by another name of the net,
    stand apart, and a fault there changes nothing.  A name with a bit is that part.
    """
    if name.endswith("]"):
        part = re.search(rf"^  assign (?P<left>\\?{re.escape(name)}) ?= (?P<right>.*);$", text, re.M)
        if part is None:
            raise ValueError(f"{name} is not assigned by itself in the core's Verilog")
        return part
    itself = re.compile(rf"\\?{re.escape(name)} (?:\[(\d+)(?::(\d+))?\])?")
    left = re.compile(r"^  assign (?P<left>\{[^}]*\}|\S+ +(?:\[[^\]]*\] +)?) ?= (?P<right>.*);$", re.M)
    named = [line for line in text.splitlines() if name in line]
    lines = [line for line in named if itself.search(line) and not re.match(r" *(?:wire|reg|input)", line)]
    made, read = [], set[int]()
    for line in lines:
        m = left.match(line)
        read |= places(itself, m["right"] if m else line)
        if m and itself.search(m["left"]) and not re.search(rf"^\d+'h[0-9a-f]+$|{itself.pattern}", m["right"]):
            made.append((line, places(itself, m["left"])))
    live = [(len(bits & read), line) for line, bits in made]
    if not live or max(live)[0] == 0:
        raise ValueError(f"{name} is not assigned in the core's Verilog, or another name of the net is what is read")
    found = left.search(text, text.index(max(live)[1]))
    assert found
    return found


def places(itself: re.Pattern[str], part: str) -> set[int]:
    """Which bits of a signal stand in a piece of text; all of them where it stands whole."""
    out = set[int]()
    for m in itself.finditer(part):
        out |= set(range(int(m[2] or m[1]), int(m[1]) + 1)) if m[1] else set(range(1024))
    return out


def bits_of(text: str, left: str) -> int:
    """How wide the left side of an assignment is: a signal, a slice, or several in braces."""
    total = 0
    for part in left.strip("{} ").split(", "):
        name, _, place = part.strip().partition(" ")
        if place.strip():
            ends = [int(v) for v in place.strip()[1:-1].split(":")]
            total += ends[0] - ends[-1] + 1
        else:
            kind = r"(?:wire|reg) (?:signed )?(?:\[(\d+):0\] )?"
            declared = re.search(rf"^  {kind}{re.escape(name)} *;$", text, flags=re.M)
            assert declared, name
            total += int(declared[1] or 0) + 1
    return total


def plant(text: str, faults: tuple[tuple[str, str, str], ...] = FAULTS) -> str:
    """The text with every fault behind ``mutant``.  ValueError: a signal that is not there, or is not assigned."""
    for k, (_, name, form) in enumerate(faults, start=1):
        found = assignment(text, name)
        bits = bits_of(text, found["left"])
        # a wire of its own: beside other operands the expression would not be what it is alone, signed or wide
        planted = (
            f"  wire [{bits - 1}:0] healthy_{k};\n  assign healthy_{k} = {found['right']};\n"
            f"  assign {found['left']} = fault == 8'd{k} ? {form.format(f'healthy_{k}')} : healthy_{k};"
        )
        text = text[: found.start()] + planted + text[found.end() :]
    text = re.sub(r"^module core\(", "module core(mutant, ", text, count=1, flags=re.M)
    # into a register: what an input reaches within a cycle, a simulator evaluates at every change of the clock
    port = "  input [7:0] mutant;\n  reg [7:0] fault;\n  always @(posedge clk) fault <= mutant;"
    return re.sub(r"^(module core\([^;]*;)$", lambda m: f"{m[1]}\n{port}", text, count=1, flags=re.M)
