"""`python -m raymc.report STUDY`: write the report of a study, finished or not, from what it left in the storage."""

import sys

from raymc.cli import execute
from raymc.commands.report import parser, run

if __name__ == "__main__":
    sys.exit(execute(parser(), run))
