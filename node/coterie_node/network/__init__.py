"""Networks of sites: founding files and development networks."""
