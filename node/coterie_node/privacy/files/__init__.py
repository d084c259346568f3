"""How the files of the privacy log are marked against damage, and kept by one program at a time."""
