"""What goes wrong outside a policy: files, audio, checkpoints, programs.  One clear line each; the command line prints
it and exits 1."""


ABSURD = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
          ValueError)
"""What may come of building something from a file whose checksum is right and whose contents are absurd."""


class UserError(Exception):
    """Something the user can mend; ``str(error)`` is one line that says what and where."""
