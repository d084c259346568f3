"""Where the entries that a reader of the chain has read are kept: in memory, or in a file that may be deleted."""
