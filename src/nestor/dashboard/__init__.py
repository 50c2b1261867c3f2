"""A live page over the studies of a storage, which can only look."""

from nestor.dashboard._server import application, serve

__all__ = ["application", "serve"]
