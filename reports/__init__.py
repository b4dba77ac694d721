"""HTML pages and figures of stores, videos, models and comparisons. They need neither a server nor a network."""
