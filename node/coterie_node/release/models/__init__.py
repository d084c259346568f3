"""What each model of a study sums of a site's own rows."""
