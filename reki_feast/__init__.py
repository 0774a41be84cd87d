"""Open-world knowledge of large language models as ordinary Feast features."""
