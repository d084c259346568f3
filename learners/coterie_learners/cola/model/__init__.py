"""Models on a pooled table: likelihood, Newton steps, separability and diagnostics."""
