"""Columns that studies of the same patients derive in different ways, judged together."""
