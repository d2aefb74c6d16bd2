"""`python -m twotime` is the command line."""

from twotime.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
