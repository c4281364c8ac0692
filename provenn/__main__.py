"""`python -m provenn` is the `provenn` command."""

import sys

from provenn.api.cli import main

sys.exit(main())
