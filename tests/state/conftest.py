from __future__ import annotations

from stores import redis_server, store_url

__all__ = ["redis_server", "store_url"]
