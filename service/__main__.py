"""`python -m service` is `flowers`."""

import sys

from service.cli.main import main

sys.exit(main())
