"""The forms that this release exchanges with other releases, and the sites that run another one."""
