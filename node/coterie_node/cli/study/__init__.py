"""Commands about studies: advise, propose, decide, certify, release, seal."""
