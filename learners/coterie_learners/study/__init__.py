"""The study: its document, the formula, the design matrix, identifiers, and the rows of one site."""
