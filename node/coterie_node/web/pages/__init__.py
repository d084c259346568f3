"""The pages of a node: one module for each, which reads the site and fills a template."""
