"""Events of a node and the notices about them: e-mail and webhooks."""
