"""The light client: a ledger that is proved from headers, receipts and state."""
