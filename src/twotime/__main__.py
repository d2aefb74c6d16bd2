"""`python -m twotime` is the command line."""

import sys

from twotime.cli import main

if __name__ == "__main__":
    sys.exit(main())
