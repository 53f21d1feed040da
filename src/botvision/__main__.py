"""`python -m botvision`: the same as the command `botvision`."""

import sys

from botvision.cli.main import main

sys.exit(main())
