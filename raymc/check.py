"""`python -m raymc.check [SPACE ...]`: validate search spaces and take one step of each stage on real data."""

import sys

from raymc.cli import execute
from raymc.commands.check import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
