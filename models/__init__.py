"""SCORE: from feature stores to scores: the published models, their training protocols and their metrics."""
