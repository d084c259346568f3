"""One hospital's node: its folder, settings, decisions, votes, and the daemon."""
