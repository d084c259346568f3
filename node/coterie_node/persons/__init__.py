"""Persons at a site: who they are, what they may do, and what they sign."""
