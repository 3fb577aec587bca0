"""`python -m difftumor` is the program `difftumor`."""

import sys

from difftumor.cli import main

sys.exit(main())
