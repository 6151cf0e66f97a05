"""`python -m mtdlr`."""

from mtdlr.cli import main

main()
