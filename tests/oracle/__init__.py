"""The independent truth: decodes with msgpack and json, keeps a dict graph, solves with SciPy. Imports no dgdm."""

from .dict_graph import Oracle
from .foreign_wire import Event, read
from .held_table import largest_error, table

__all__ = ["Event", "Oracle", "largest_error", "read", "table"]
