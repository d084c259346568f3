"""What leaves this site: the gate that judges every payload, and people's yes to it."""
