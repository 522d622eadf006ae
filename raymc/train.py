"""`python -m raymc.train SPACE [KEY=VALUE ...]`: train one configuration on one machine."""

import sys

from raymc.cli import execute
from raymc.commands.train import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
