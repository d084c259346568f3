"""`python -m coterie_node` is the command `coterie`."""

from coterie_node.cli import main

main()
