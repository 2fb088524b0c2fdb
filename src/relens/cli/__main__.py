"""`python -m relens.cli` is `relens`: child processes are started so."""

from relens.cli import main

main()
