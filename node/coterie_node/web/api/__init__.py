"""The HTTP API of a node: the command line's verbs for programs, behind bearer tokens."""
