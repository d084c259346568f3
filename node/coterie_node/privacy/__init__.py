"""The privacy log: what may be released, judged over patients, values, parties, and all that ever left this site."""
