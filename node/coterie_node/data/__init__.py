"""From a site's own file to checked rows."""
