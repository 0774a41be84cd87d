"""Text to vectors: an encoder's pooled token vectors, each distinct text encoded once.

Two stages live here. :func:`encode_texts` encodes the texts that are not known yet;
:func:`represent` lays their vectors out as an entity's channels. Both work on whole Arrow columns.

The pooling is the REKI paper's (arXiv 2408.10520, section 4.3): the mean of the last layer's token
vectors, not normalised. A text longer than the model's window is cut into windows and pooled over
the tokens of all of them, so nothing is dropped unless ``max_tokens`` says so.
"""

from reki_feast.encode.columns import Floats, take_vectors, vector_array, vector_matrix
from reki_feast.encode.encoder import Encoder, HashEncoder
from reki_feast.encode.model import Pooling, Progress, SentenceTransformerEncoder
from reki_feast.encode.texts import encode_texts, represent

__all__ = [
    "Encoder",
    "Floats",
    "HashEncoder",
    "Pooling",
    "Progress",
    "SentenceTransformerEncoder",
    "encode_texts",
    "represent",
    "take_vectors",
    "vector_array",
    "vector_matrix",
]
