"""Records that dgdm itself writes: read back strictly, in either encoding."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from .judging import json_text
from .reasons import InvalidEvent, Reason, shortened

T = TypeVar("T")


class RecordDecoder(Generic[T]):
    """Decodes one kind of record from MessagePack or JSON."""

    def __init__(self, kind: type[T], name: str) -> None:
        self._name = name
        self._json = msgspec.json.Decoder(kind)
        self._msgpack = msgspec.msgpack.Decoder(kind)

    def decode(self, value: bytes) -> T:
        """The record. Raises InvalidEvent, and nothing else, for any bytes."""
        try:
            text = json_text(value)
            return self._msgpack.decode(value) if text is None else self._json.decode(text)
        except msgspec.ValidationError as error:
            raise self._refused(Reason.WRONG_TYPE, value, error) from None
        except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(Reason.UNDECODABLE, value, error) from None

    def _refused(self, reason: Reason, value: bytes, error: Exception) -> InvalidEvent:
        return InvalidEvent(
            reason, f"not {self._name}: {shortened(value, 40)} ({shortened(str(error), 160)})"
        )
