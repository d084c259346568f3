"""The audit report: HTML and PDF."""
