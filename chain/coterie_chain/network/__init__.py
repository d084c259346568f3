"""Development networks: genesis, deployment, and launchers for the programs in `programs`."""
