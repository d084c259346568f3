"""A result's table as papers take it, from the same cells in every format."""
