"""A user's own PyTorch model, read: which layers it has, how its values flow, and everything that is in the way, with
the user's own lines.

    exported    the model's forward as a list of ATen calls with shapes, by torch.export: wrappers are seen through, the
                model is left as it was
    values      what a tensor of the model is: a sequence of vectors with its axes, parameters, zeros
    reading     one pass over the calls; `readers` says what each call means, one family a file
    captured    the model graph with weights, ties, dropout, and where the user's axes are

What is read is what the forward computes: hooks, subclasses with a forward of their own and parametrisations are
followed, for the calls that they make are in the list.  `nnac.train.prepare` then runs the model and its reading side
by side and refuses on any difference.
"""

from nnac.capture.captured import Captured, capture
from nnac.capture.problems import PrepareError, Problem

__all__ = ["Captured", "PrepareError", "Problem", "capture"]
