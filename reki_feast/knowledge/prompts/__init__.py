"""Prompts: templates, the texts of users, items and groups, redaction, fingerprints."""
