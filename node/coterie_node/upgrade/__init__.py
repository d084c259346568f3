"""What this release reads and writes of other releases: the table that an upgrade goes by, and who runs another one."""
