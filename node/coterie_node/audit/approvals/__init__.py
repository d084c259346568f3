"""The approvals of a study at each site, as the persons signed them and as the ledger has them."""
