"""From tokens' bytes to text that may be sent: stop strings found over bytes, characters never cut.

What may begin a stop string is held back until it is known not to, and so is the beginning of a character. The text
before a stop string is sent, the stop string never. The one that is whole first counts, however the tokens are cut.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Text:
    """The text of one choice as it comes. `stopped` once a stop string was found; nothing comes after it."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop.encode() for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stopped = False

    def add(self, piece: bytes) -> str:
        """The next token's bytes → what may be sent by now."""
        if not self._stops:
            return self._decoder.decode(piece)
        if self.stopped:
            return ""
        held = self._held + piece
        at, self.stopped = self._first_stop(held)
        if self.stopped:
            self._held = b""
            return self._decoder.decode(held[:at], final=True)
        keep = self._may_begin(held)
        self._held = held[len(held) - keep :]
        return self._decoder.decode(held[: len(held) - keep])

    def finish(self) -> str:
        """What was held back, at the end: it began no stop string; half a character becomes a replacement character."""
        held, self._held = self._held, b""
        return "" if self.stopped else self._decoder.decode(held, final=True)

    def _first_stop(self, held: bytes) -> tuple[int, bool]:
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        return (min(found)[1], True) if found else (-1, False)

    def _may_begin(self, held: bytes) -> int:
        """The length of the longest end of `held` with which a stop string begins."""
        for length in range(min(self._longest - 1, len(held)), 0, -1):
            end = held[len(held) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
