"""The ledger on an Ethereum chain: reading, writing, decoding, headers and seals."""
