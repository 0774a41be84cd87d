"""The name of version 0.1.0 for :mod:`reki_feast.models`, for scripts written then."""
