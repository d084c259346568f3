"""The release gate: what may leave this site, what left it before, and who allows it."""
