"""A run on a Ray cluster: actors ask the model and encode texts; the driver decides and stores.

Declarations, stages and hashes are those of a run on one machine. The driver keeps what must exist
once: who is asked next, the limiter, the budget, the gates. The ledger has an actor of its own.
"""
