"""`python -m coterie_node` is the command `coterie`."""

from coterie_node.cli.main import main

main()
