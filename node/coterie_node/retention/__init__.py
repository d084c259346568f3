"""What a site keeps of ended studies, for how long, and how it deletes their payloads."""
