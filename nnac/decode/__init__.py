"""Decoding: from joint scores to tokens."""
