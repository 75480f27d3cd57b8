"""Published compression methods, one a file; ``base`` says how one is declared.  Nothing here imports torch until it is
used."""

from nnac.compression.base import Form, Method, argument, find, form, forms, from_dict, keywords, method, methods

__all__ = ["Form", "Method", "argument", "find", "form", "forms", "from_dict", "keywords", "method", "methods"]
