"""What a site's node needs to take part in studies, checked one by one, each failure with its remedy."""
