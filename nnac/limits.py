"""What the words of the instruction set have room for: asked by targets, by the language and by operators, none of
which makes an instruction."""

MOST = dict(lanes=256, columns=16, semaphores=12)              # of what a target says
MOST_ELEMENTS = 4096                                           # of one vector instruction
MOST_UNITS = 1024                                              # of one step of an LSTM
