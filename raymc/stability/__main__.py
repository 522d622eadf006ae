"""The door: `python -m raymc.stability`."""

import sys

from raymc.cli import execute
from raymc.commands.stability import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
