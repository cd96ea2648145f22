"""How a token is shown by its origin, the same on every screen. In: the origin's word. Out: a style, marks.

The words are those of the values of `edge_agent.ledger.Origin`; a monitor, which sees the wire alone, has two
more. Skipped text looks plain, since it is most of it. Marks stand where there are no colours.
"""

from __future__ import annotations

STYLES = {
    "skipped": "",
    "accepted": "green",
    "bonus": "cyan",
    "recovered": "yellow",
    "unverified": "red",
    "in doubt": "reverse",
    "unknown": "dim",
}
MARKS = {
    "skipped": ("", ""),
    "accepted": ("+", ""),
    "bonus": ("*", ""),
    "recovered": ("[", "]"),
    "unverified": ("?", ""),
    "in doubt": ("<", ">"),
    "unknown": ("~", ""),
}
