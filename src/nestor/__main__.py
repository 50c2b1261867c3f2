"""`python -m nestor` is the `nestor` command."""

import sys

from nestor.cli import main

if __name__ == "__main__":
    sys.exit(main())
