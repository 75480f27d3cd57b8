"""Latency as a user feels it: a program's exact cycles, the audio's own time, and a host whose constants are named.

`simulate` is the model of one utterance, `measure` listens to many and sums up, `plane` moves two programs from
machine to machine, `picture` draws one utterance.
"""
