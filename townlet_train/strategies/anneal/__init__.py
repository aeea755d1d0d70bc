"""Anneal: from a clone to a better policy in stages, under guardrails that act."""
