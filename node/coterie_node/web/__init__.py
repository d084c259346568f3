"""The node's web page and HTTP API, as a process of its own."""
