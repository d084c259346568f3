"""The chain room: ledger and blob store. It moves bytes and does not know what they mean."""
