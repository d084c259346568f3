"""Numbers shared among three parties: prime fields, sessions, Shamir shares, and comparisons on them."""
