"""The learners room: mathematics and protocols. No files, clocks, sockets, logging or unseeded randomness."""
