"""`python -m raymc.checkpoint SPACE [KEY=VALUE ...] --out DIR`: a stage's weights, for others to go on from."""

import sys

from raymc.cli import execute
from raymc.commands.checkpoint import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
