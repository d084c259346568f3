"""What every learner uses: the protocol of steps, payloads, masked sums, fits and their disclosure."""
