"""The page's present knowledge of its site: the ledger as one thread follows it, jobs, and parts that are sent live."""
