"""Programs that a network consists of (Anvil, Geth, Besu, Kubo), and how they are run."""
