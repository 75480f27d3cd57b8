"""The machine as hardware: an RTL core in Amaranth, its memories at its border, and the co-simulation with the
emulator.

    params    what the core takes from `MachineConfig` and from the instruction registry; what it cannot be built for
    control   fetch, queues, semaphores           bus      the DRAM bus, burst by burst
    stream    DW: requests, ring                   decoder  DW: weight streams to weight words
    dma       DA                                   matrix   MV          vector, lanes, root, rings  VX
    core      all of them, and the ports           build    Verilog, then a simulator (Verilator or CXXRTL) as a library
    machine   a program's bytes on the simulated core, instruction by instruction beside the emulator

The clocked rules are `nnac.emulator.clocked`; every instruction's first and last cycle equal theirs.  Inside an
instruction the core is free: operands are read and results written between start and done, which is all that the hazard
proof of a program asks for.  The memories (A, W, ring, look-up and decoder tables, DRAM, code) are macros with
registered reads: an address in one cycle, its data in the next.
"""
