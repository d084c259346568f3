"""The opening of a masked study: labels of rows, then the pool's levels against the floor, before any other sum."""
