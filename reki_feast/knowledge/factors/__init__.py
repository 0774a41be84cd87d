"""Factors: proposed by the model, merged, and confirmed in a file by an expert."""
