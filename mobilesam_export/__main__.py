"""``python -m mobilesam_export``."""

import sys

from mobilesam_export.cli import main

sys.exit(main())
