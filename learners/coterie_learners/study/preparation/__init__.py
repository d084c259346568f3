"""What becomes of a site's own rows before a model reads them: conditions on rows, derived variables, patients."""
