"""A client of a node's HTTP API for Python: `coterie.Node`."""
