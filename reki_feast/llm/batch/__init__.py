"""The Batch API: its client, the records of batches in the ledger, and the lifecycle of a batch."""

from reki_feast.llm.batch.client import BatchOptions, OpenAIBatchLLM

__all__ = ["BatchOptions", "OpenAIBatchLLM"]
