"""Export MobileSAM: ``python export.py --target onnx``. The same as ``mobilesam-export export``."""

import sys

from mobilesam_export.cli import COMMANDS, main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(arguments if arguments and arguments[0] in COMMANDS else ["export", *arguments]))
