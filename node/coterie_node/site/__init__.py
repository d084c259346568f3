"""One hospital's node: its folder, settings, cards, invitations, decisions, votes about members, and the daemon."""
