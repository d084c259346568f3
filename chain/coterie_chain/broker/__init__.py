"""The federated twin: ledger and store over a message broker, unsigned, for experiments alone."""
