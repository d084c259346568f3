"""Development networks: genesis, deployment, launchers for the programs in `programs`, and sealers that sleep."""
