"""What each daemon says of itself to all others through the swarm, and the matrix that any site makes of it."""
