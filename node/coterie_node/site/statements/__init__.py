"""What a site says on the ledger beside its posts: with what it joins, what it takes back, and what became of a study."""
