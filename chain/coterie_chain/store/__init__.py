"""The store of payloads: content identifiers, Kubo (IPFS), folders and memory."""
