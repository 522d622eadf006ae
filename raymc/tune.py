"""`python -m raymc.tune SPACE [KEY=VALUE ...]`: search a space, and confirm the best on seeds it never saw."""

import sys

from raymc.cli import execute
from raymc.commands.tune import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
