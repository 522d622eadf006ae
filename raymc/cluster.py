"""`python -m raymc.cluster DATA`: cluster photos, rows or embeddings without a space file and without labels."""

import sys

from raymc.cli import execute
from raymc.commands.cluster import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
