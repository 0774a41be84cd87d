"""Feast's own universal integration tests against our stores, beside the stock ones."""
