"""`python -m riverdelta` is the command line."""

from riverdelta.cli import main

main()
