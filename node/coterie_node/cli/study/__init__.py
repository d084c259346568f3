"""Commands about studies: advise, propose, decide, show, certify, compare, contrast, predict, release, seal, pda."""
