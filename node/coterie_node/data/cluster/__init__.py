"""Rows in parts on a Dask cluster of the hospital, whose workers compute sums; no row comes to the node."""
