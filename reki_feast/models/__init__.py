"""Backbone recommenders that HEIN is trained with, their data, training and metrics."""
