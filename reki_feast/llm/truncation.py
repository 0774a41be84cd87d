"""Detects truncated prompts: the server's bill against what was sent.

Servers that cut prompts to their context length say nothing of it, but bill what is left.
"""

from __future__ import annotations

#: Shorter prompts tell nothing: what a server adds to them is as much.
_SHORTEST = 32
#: No script has so few tokens that a prompt read whole is billed below this share of the estimate.
_FAR_BELOW = 1 / 3
#: So many prompts that differ by so much in length and are billed alike, and highest, were cut …
_AT_TOP, _SPREAD = 4, 1.25
#: … alike to within a few tokens: where a text is cut, a token may be split …
_ALIKE = 4
#: … unless they are short, and alike by chance.
_SHORTEST_TOP = 100


class TruncationMonitor:
    """Compares the estimated tokens of prompts with those that the server bills.

    Attributes:
        longest: tokens of the longest prompt, as estimated.
    """

    def __init__(self) -> None:
        self.longest = self._count = 0
        # those billed far below the estimate: how many, their estimates and bills together
        self._few, self._few_sent, self._few_billed = 0, 0, 0
        # the highest bill: how many are like it, the least and the greatest estimate of these
        self._top, self._at_top, self._least, self._greatest = 0, 0, 0, 0

    def add(self, sent: int, billed: int) -> None:
        """Take in one question.

        Args:
            sent: its tokens, as estimated.
            billed: its tokens, as the server counts them; 0 where it counts none.
        """
        if sent < _SHORTEST or billed <= 0:
            return
        self._count += 1
        self.longest = max(self.longest, sent)
        if billed < _FAR_BELOW * sent:
            self._few += 1
            self._few_sent += sent
            self._few_billed += billed
        if billed > self._top + _ALIKE:
            self._top, self._at_top, self._least, self._greatest = billed, 0, sent, sent
        if billed >= self._top - _ALIKE:
            self._at_top += 1
            self._least, self._greatest = min(self._least, sent), max(self._greatest, sent)

    def found(self) -> str:
        """What shows that prompts are cut, as a part of a sentence; "": nothing does.

        >>> readings = TruncationMonitor()
        >>> readings.add(sent=320, billed=40)
        >>> readings.found()
        'it bills 40 prompt tokens where some 320 were sent'
        """
        if self._few and self._few >= min(3, self._count):
            billed, sent = round(self._few_billed / self._few), round(self._few_sent / self._few)
            return f"it bills {billed:,} prompt tokens where some {sent:,} were sent"
        if self._has_ceiling():
            prompts = f"{self._at_top:,} prompts of some {self._least:,} to {self._greatest:,}"
            return f"it bills some {self._top:,} prompt tokens for each of {prompts}"
        return ""

    def _has_ceiling(self) -> bool:
        is_spread = self._greatest >= _SPREAD * self._least and self._greatest == self.longest
        return self._at_top >= _AT_TOP and self._top >= _SHORTEST_TOP and is_spread
