"""``python -m vcc_helpers`` is the command."""

import sys

from .cli import main

sys.exit(main())
