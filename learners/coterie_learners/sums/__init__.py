"""The one engine of sums: families, frames, a round's sums of rows, Newton's step on them, and what a fit is worth."""
