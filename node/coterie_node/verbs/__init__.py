"""What people do at a node: the functions that the command line, the HTTP API and the page share."""
