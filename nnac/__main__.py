"""``python -m nnac`` is ``nnac``."""

import sys

from nnac.cli import main

sys.exit(main())
