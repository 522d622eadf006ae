"""`python -m raymc.studies list|show|compare|export|delete|clean`: keep, compare and throw away studies."""

import sys

from raymc.cli import execute
from raymc.commands.studies import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
