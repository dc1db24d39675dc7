"""dgdm: embeddings of a moving graph, always fresh, with a proven error."""

__version__ = "0.1.0"
