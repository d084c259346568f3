"""Reading the files that hold a site's rows: CSV and Parquet, each bounded before it is read."""
