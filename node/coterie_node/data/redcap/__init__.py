"""Exports of REDCap projects: the raw export with the data dictionary, which has types, levels and labels."""
