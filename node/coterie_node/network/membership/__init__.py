"""How a later site enters a network, how the swarm's key changes for all, and how a site leaves."""
