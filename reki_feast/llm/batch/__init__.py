"""The Batch API: the remote side, the ledger's entries of batches, and the way between them."""

from reki_feast.llm.batch.remote import OpenAIBatchLLM

__all__ = ["OpenAIBatchLLM"]
