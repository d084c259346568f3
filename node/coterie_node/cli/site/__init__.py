"""The commands of a hospital's node: init, doctor, invite, join, serve and `site`."""
