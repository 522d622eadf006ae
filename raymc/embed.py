"""`python -m raymc.embed DATA --encoder NAME`: what a frozen encoder gives for data, as a file of vectors."""

import sys

from raymc.cli import execute
from raymc.commands.embed import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
