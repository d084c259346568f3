"""COLA-GLM and secure-COLA-GLM: one table of each site, one round."""
