"""Scheduling: from a bound QGraph to instructions in an order that keeps the machine at its roofline, and the proof
that the order is safe.

    tiling      rows to lanes, columns to stream buffers; gates interleaved so that a tile ends whole cells
    pins        which weights stay on chip
    memory      where every buffer lies
    emit        one layer after another: loads, products, vector work
    order       loads moved ahead, waits and signals put in
    verify      no race, no deadlock, no read of what was never written: shown on the instructions alone
    roofline    what no schedule can beat, from bytes and products
    bounds      what no order of a program's instructions can beat, and the unit that says so
"""
