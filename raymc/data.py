"""`python -m raymc.data [list | check NAME | get NAME]`: what is known, what is there, how its files must be."""

import sys

from raymc.cli import execute
from raymc.commands.data import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
