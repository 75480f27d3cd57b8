"""The commands of ``nnac``, one a file; see ``nnac.cli``."""
