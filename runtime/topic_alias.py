"""Which MQTT 5 topic alias stands for which topic on one connection. In: topics. Out: small numbers."""

from __future__ import annotations

from collections import OrderedDict


class TopicAliases:
    """The aliases of one connection, from its CONNACK to its end; the least recently used one is reused.

    An alias lives in the broker's memory of one connection. So a new table is made at each CONNACK, and what
    this one says may only be queued on the connection it was made for.
    """

    def __init__(self, max_aliases: int) -> None:
        self._max_aliases = max_aliases
        self._alias_of: OrderedDict[str, int] = OrderedDict()

    def use(self, topic: str) -> tuple[int, bool] | None:
        """The alias of `topic`, and whether the broker knows it already; None where the broker takes none.

        Where it does not, the message must carry topic and alias both, which defines it.
        """
        alias = self._alias_of.get(topic)
        if alias is not None:
            self._alias_of.move_to_end(topic)
            return alias, True
        if self._max_aliases == 0:
            return None
        if len(self._alias_of) < self._max_aliases:
            alias = len(self._alias_of) + 1
        else:
            _, alias = self._alias_of.popitem(last=False)
        self._alias_of[topic] = alias
        return alias, False
