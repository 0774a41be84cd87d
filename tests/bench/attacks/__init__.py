"""Attacks on a small project, each with what it may not find: see :mod:`tests.bench.attack`."""
