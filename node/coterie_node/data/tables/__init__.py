"""Whole tables under the hospital's own names: text files, Parquet, Excel, Stata, SAS, SPSS, SQL."""
