"""`python -m oodream`, as the program `oodream`."""

import sys

from .cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
