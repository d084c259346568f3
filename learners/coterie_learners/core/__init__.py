"""What every learner stands on: the protocol of steps, payloads, masked sums, fits and their disclosure."""
