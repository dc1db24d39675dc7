"""Node ids: text, byte for byte."""

from __future__ import annotations

from .reasons import InvalidEvent, Reason, shortened

MAX_ID_BYTES = 256


def parse_id(value: object) -> str:
    """The text of an id: an integer is its decimal text, a string is itself; 1 to 256 bytes of UTF-8.

    Raises InvalidEvent for everything else; no trimming and no Unicode normalisation.
    """
    if type(value) is str:
        if 0 < len(value) <= MAX_ID_BYTES and value.isascii():
            return value
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > 8 * MAX_ID_BYTES:
            raise InvalidEvent(
                Reason.BAD_ID, f"an id has 1 to {MAX_ID_BYTES} bytes, this integer has more digits"
            )
        text = str(int(value))
    else:
        raise InvalidEvent(Reason.BAD_ID, f"an id is text or an integer, not {shortened(value)}")
    try:
        length = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidEvent(Reason.BAD_ID, f"the id {shortened(text)} is not valid Unicode") from None
    if not 1 <= length <= MAX_ID_BYTES:
        raise InvalidEvent(
            Reason.BAD_ID, f"an id has 1 to {MAX_ID_BYTES} bytes, {shortened(text)} has {length}"
        )
    return text
