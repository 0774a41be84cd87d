"""Text encoders behind the embeddings protocol of OpenAI, asked as language models are.

A call has several texts for a prompt and their vectors for an answer, so that it stands in the
ledger, keeps to the budget and to the limiter's pace, and is repeated, as any call is.
"""

from reki_feast.llm.embeddings.client import EmbeddingOptions, OpenAIEmbeddings
from reki_feast.llm.embeddings.encoder import EndpointEncoder
from reki_feast.llm.embeddings.run import EmbeddingRun
from reki_feast.llm.embeddings.texts import TextOptions

__all__ = [
    "EmbeddingOptions",
    "EmbeddingRun",
    "EndpointEncoder",
    "OpenAIEmbeddings",
    "TextOptions",
]
