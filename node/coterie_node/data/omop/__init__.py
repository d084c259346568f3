"""Rows of an OMOP CDM 5.4 database: cohort, covariates and outcome, declared at the site and compiled to a query."""
