"""Tags of the feature views of a scenario, beside those of :mod:`reki_feast.stores.defaults`."""

from __future__ import annotations

#: Of a view of vectors: JSON list of the channel pairs that the vector's parts are made of.
PAIRS_TAG = "reki.pairs"
#: Fingerprint of the weights that made the vectors: views of two fingerprints don't fit together.
WEIGHTS_TAG = "reki.weights"
#: Of an on-demand view: the domain whose scores it computes.
DOMAIN_TAG = "reki.domain"
#: HEIN was trained on labels of interactions before this time; test a model on later ones only.
TRAINED_UNTIL_TAG = "reki.trained_until"
