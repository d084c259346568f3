"""Interactive steps: sites that talk to each other off the ledger, over TLS."""
