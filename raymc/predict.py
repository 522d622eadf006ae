"""`python -m raymc.predict MODEL DATA`: label new samples by a trained model."""

import sys

from raymc.cli import execute
from raymc.commands.predict import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
