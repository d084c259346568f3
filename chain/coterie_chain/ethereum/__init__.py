"""The ledger on an Ethereum chain: reading, writing, which blocks count, decoding, headers and seals."""
