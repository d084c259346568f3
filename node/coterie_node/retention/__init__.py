"""What a site keeps of ended studies, for how long, and how it lets go of their payloads."""
