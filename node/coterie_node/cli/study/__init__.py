"""Commands about studies: advise, propose, decide, show, certify, release, seal, pda."""
