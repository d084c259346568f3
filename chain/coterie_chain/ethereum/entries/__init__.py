"""Memory of the entries that a reader of the chain has read: in the process, or in a file that may be deleted."""
