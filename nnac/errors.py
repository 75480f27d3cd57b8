"""What goes wrong outside a policy: files, audio, checkpoints, programs.  One clear line each; the command line prints it and exits 1."""


class UserError(Exception):
    """Something the user can mend; ``str(error)`` is one line that says what and where."""
