"""Text to vectors: an encoder's pooled token vectors, each distinct text encoded once.

Two stages live here. :func:`encode_texts` encodes the texts that are not known yet;
:func:`represent` arranges their vectors as the channels of entities. Both work on whole Arrow
columns.

Vectors of a model are those of its own ``encode_document``. The REKI paper
(arXiv 2408.10520, section 4.3) takes the mean of the last layer's token vectors, not normalised:
``pooling="mean"``. A text longer than a transformer's window is split into windows, whose vectors
are pooled, so that nothing is truncated unless ``max_tokens`` is set.
"""

from reki_feast.encoding.columns import Floats, take_vectors, vector_array, vector_matrix
from reki_feast.encoding.encoder import HashEncoder, TextEncoder
from reki_feast.encoding.int8 import QuantizedModel
from reki_feast.encoding.model import EncoderOptions, SentenceTransformerEncoder
from reki_feast.encoding.parts import Pooling
from reki_feast.encoding.projection import FITTED_TO, ProjectedEncoder, Projection
from reki_feast.encoding.texts import (
    RowTimes,
    encode_texts,
    encoded,
    lay_out,
    represent,
    row_hashes,
    text_hashes,
)
from reki_feast.encoding.windows import Progress

__all__ = [
    "FITTED_TO",
    "EncoderOptions",
    "Floats",
    "HashEncoder",
    "Pooling",
    "Progress",
    "ProjectedEncoder",
    "Projection",
    "QuantizedModel",
    "RowTimes",
    "SentenceTransformerEncoder",
    "TextEncoder",
    "encode_texts",
    "encoded",
    "lay_out",
    "represent",
    "row_hashes",
    "take_vectors",
    "text_hashes",
    "vector_array",
    "vector_matrix",
]
