"""HTML pages and figures of stores, videos, models and comparisons, which work without a server and a network."""
