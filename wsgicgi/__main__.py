"""``python -m wsgicgi`` is ``wsgicgi-dev``."""

import sys

from .devserver import main

sys.exit(main())
