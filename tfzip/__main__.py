"""`python -m tfzip`."""

import sys

from tfzip.cli import main

sys.exit(main())
