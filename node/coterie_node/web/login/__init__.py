"""What persons do on the page to be known and to sign: identity providers, passkeys, signatures under decisions."""
