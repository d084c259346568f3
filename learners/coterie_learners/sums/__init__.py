"""The engine of sums: families, links, and what sums of one site disclose."""
