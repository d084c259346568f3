"""Who approved a study at each site, as the persons signed it and as the ledger has it."""
