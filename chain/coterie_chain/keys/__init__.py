"""A site's secrets: signing and sealing keys, sealed envelopes, the journal, private files."""
