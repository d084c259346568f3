"""The judgement of rows that stay on other machines, made beside them."""
