"""`python -m recstore`."""

from recstore.cli import main

main()
