"""What a node shows of itself: log, metrics, HTTP API."""
