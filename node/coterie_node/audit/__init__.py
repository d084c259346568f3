"""The audit: replay, verification, bundles, history, results."""
