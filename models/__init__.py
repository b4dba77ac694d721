"""Scoring models, their training protocols and metrics, on features from a store."""
