"""Commands about studies: advise, propose, decide, show, certify, compare, release, seal, pda."""
