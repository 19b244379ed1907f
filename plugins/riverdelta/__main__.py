"""`python -m riverdelta` is the command line."""

from riverdelta.cli.main import main

main()
