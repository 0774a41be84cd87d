"""Answers: parsed into a text a factor, and made into rows of knowledge."""
