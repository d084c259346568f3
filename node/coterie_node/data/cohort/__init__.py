"""The study's conditions and derived variables on a site's own rows, and the flow of its patients through them."""
