"""What the page knows of its site now: the ledger as one thread follows it, jobs, and parts that are sent live."""
