"""The ledger as rules: its protocol, the contract's rules in Python, hash chains, and a memory twin."""
