"""Text to vectors: an encoder's pooled token vectors, each distinct text encoded once.

Two stages live here. :func:`encode_texts` encodes the texts that are not known yet;
:func:`represent` lays their vectors out as an entity's channels. Both work on whole Arrow columns.

A named model is that model: vectors are those of its own ``encode_document``. The REKI paper
(arXiv 2408.10520, section 4.3) takes the mean of the last layer's token vectors, not normalised:
``pooling="mean"``. A text longer than a transformer's window is cut into windows, and what they say
is joined, so nothing is dropped unless ``max_tokens`` says so.
"""

from reki_feast.encode.columns import Floats, take_vectors, vector_array, vector_matrix
from reki_feast.encode.encoder import Encoder, HashEncoder
from reki_feast.encode.model import SentenceTransformerEncoder
from reki_feast.encode.parts import Pooling
from reki_feast.encode.texts import encode_texts, represent
from reki_feast.encode.windows import Progress

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
