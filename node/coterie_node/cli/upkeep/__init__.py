"""Commands of a site's upkeep over years: what it keeps, and in which forms releases meet."""
