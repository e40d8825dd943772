"""`python -m peftguard`."""

from peftguard.cli import main

main()
