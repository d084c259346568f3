"""What a site says on the ledger beside its posts: with what it joins, what it takes back, how a study ended up."""
