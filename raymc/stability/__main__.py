"""`python -m raymc.stability SPACE|STUDY [--vs OTHER ...] [KEY=VALUE ...]`: configurations on many seeds."""

import sys

from raymc.cli import execute
from raymc.commands.stability import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
