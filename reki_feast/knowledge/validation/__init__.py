"""Validation of answers: the gates that they pass before they become knowledge."""
