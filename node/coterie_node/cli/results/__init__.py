"""Commands that read results: compare, contrast, gain, plot, predict."""
