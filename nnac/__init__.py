"""nnac: from a compression policy to a scheduled, bit-exact program for a neural network accelerator."""

__version__ = "0.1.0"
