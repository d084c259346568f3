"""What a site's own columns, codes and units are in the study's words; the site's file stays as it is."""
