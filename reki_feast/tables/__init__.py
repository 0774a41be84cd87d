"""The tables of a project: the user's own, checked, and those that the stages store (the lake)."""
