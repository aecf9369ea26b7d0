"""`python -m oodream.cli`."""

import sys

from .main import main

sys.exit(main())
