"""`python -m ssondo` and `torchrun -m ssondo` are the command line."""

import sys

from ssondo.cli import main

sys.exit(main())
