"""The door to MQTT, the only file that imports paho. In: publications, filters. Out: inboxes of messages.

paho's network thread does the talking; what it reads goes into bounded inboxes, and nothing an outsider
sends can raise there. Owners publish from their own threads. What cannot be sent now raises at once: there
is no queue of old messages that a reconnect would let loose.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from runtime.backoff import Backoff
from runtime.inbox import Inbox, Message
from runtime.link import BrokerAddress, Publication, tls_context
from runtime.link_health import LinkHealth
from runtime.log_throttle import LogThrottle
from runtime.publish_limits import PublishLimits
from runtime.socket_bytes import SocketBytes
from schemas.errors import Disconnected, LinkError

__all__ = ["BrokerAddress", "Connection", "Inbox", "Message", "Publication"]

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")

# A session opening carries the longest prompt, a profile its dictionary: tens of kilobytes. Four times that.
DEFAULT_MAX_PACKET_BYTES = 262_144
# How many QoS 1 messages the broker may send us before it must wait for an acknowledgement.
_RECEIVE_MAXIMUM = 64
# A link that takes this many QoS 0 messages without writing the first of them is as good as down.
_MAX_UNWRITTEN = 1024
# QoS 1 messages without an acknowledgement; paho holds back those past its 20 in flight.
_MAX_UNACKNOWLEDGED = 64
_CONNECT_TIMEOUT_S = 5.0
# Waiting for the broker at the end, once for the farewell and once for the end of the connection.
_FAREWELL_S = 1.0


class _Client(paho.Client):
    """paho's client, whose thread survives what an attempt to connect may raise."""

    def reconnect(self) -> MQTTErrorCode:
        """Connect again; all that goes wrong is an OSError, the only kind that paho's thread survives.

        Beside odd names and certificates: paho walks over its queue here, and a publish that began on the
        connection before may still be adding to it (RuntimeError: deque mutated during iteration).
        """
        try:
            return super().reconnect()
        except OSError:
            raise
        except Exception as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


class Connection:
    """One MQTT 5 connection that comes back by itself. Thread-safe; clean start, session expiry 0.

    `birth` is published at each CONNACK, `will` by the broker when the connection dies without a farewell.
    Both are kept by the broker unless they say otherwise. A connection starts once and stops once.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        will: Publication | None = None,
        birth: Publication | None = None,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = address
        self.num_unexpected = 0  # messages on topics that no inbox asked for
        # Held for short moments by owners and by paho's thread. paho holds its own `_out_message_mutex` while
        # it runs some callbacks, and takes it in publish() with QoS 1: so an owner must never publish with
        # QoS 1 while it holds this lock. With QoS 0 it must, or an alias could slip into the next connection.
        self._state = threading.Condition(threading.RLock())
        self._connected = False
        self._stopping = False
        self._birth = birth
        self._max_packet_bytes = max_packet_bytes
        self._limits = PublishLimits(max_packet_bytes)
        self._health = LinkHealth(address, Backoff() if backoff is None else backoff)
        self._inboxes: tuple[tuple[Inbox, tuple[tuple[str, int], ...]], ...] = ()
        self._unanswered: set[int | None] = set()  # subscriptions without a SUBACK, by packet id
        self._unwritten: deque[paho.MQTTMessageInfo] = deque()
        self._socket: socket.socket | None = None
        self._bytes = SocketBytes()
        self._throttle = LogThrottle()
        self._client = self._make_client(will)

    # -------------------------------------------------------------------------------- what owners use

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this connection and it has not been seen to end since."""
        return self._connected

    @property
    def last_error(self) -> str | None:
        """Why there is no connection, in one line with the mend; None while there is one."""
        return self._health.last_error

    @property
    def bytes_sent(self) -> int | None:
        """Bytes sent over all connections of this object, MQTT and TLS included; None where unknown."""
        return self._bytes.sent

    @property
    def bytes_received(self) -> int | None:
        """Bytes received over all connections of this object, MQTT and TLS included; None where unknown."""
        return self._bytes.received

    @property
    def num_connects(self) -> int:
        """How often the broker has accepted this connection."""
        return self._health.num_accepted

    @property
    def num_dropped(self) -> int:
        """Messages that full inboxes have dropped."""
        return sum(inbox.num_dropped for inbox, _ in self._inboxes)

    def start(self) -> None:
        """Begin to connect, in the background, for as long as it takes."""
        self._client.connect_async(
            self.address.host,
            self.address.port,
            self.address.keepalive_s,
            clean_start=True,
            properties=_connect_properties(self._max_packet_bytes),
        )
        self._client.loop_start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until connected and the broker has answered every subscription. False: not in that time."""
        with self._state:
            return self._state.wait_for(lambda: self._connected and not self._unanswered, timeout_s)

    def expect_connected(self, timeout_s: float) -> None:
        """Wait until connected; raises LinkError, with the reason where one is known, where that takes too long."""
        if not self.wait_connected(timeout_s):
            raise LinkError(self.last_error or f"broker {self.address} does not answer")

    def subscribe(self, filters: Sequence[tuple[str, int]], *, max_queued: int = 256) -> Inbox:
        """An inbox for the topics that match `filters` (filter, QoS); subscribed again at every CONNACK.

        A message goes to every inbox it matches. Filters of one connection should not overlap: a broker may
        then deliver a message more than once.
        """
        inbox = Inbox(tuple(topic_filter for topic_filter, _ in filters), max_queued)
        with self._state:
            self._inboxes = (*self._inboxes, (inbox, tuple(filters)))
            if self._connected:
                self._send_subscribe(tuple(filters))
        return inbox

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, alias: bool = False
    ) -> None:
        """Hand one message to the network. `alias` (QoS 0 only) sends the topic once, then two bytes for it.

        Raises:
            Disconnected: there is no connection, or it takes nothing any more. Nothing was queued.
            PayloadTooLarge: the broker would not take it. Nothing was sent.
            LinkError: the broker acknowledges nothing any more.
        """
        if alias and qos:
            raise ValueError("a topic alias is for QoS 0 only: paho repeats QoS 1 on the next connection")
        self._limits.check(topic, payload, qos)
        if qos:
            self._publish_acknowledged(Publication(topic, payload, qos, retain))
        else:
            self._publish_at_most_once(topic, payload, retain=retain, alias=alias)

    def check_size(self, topic: str, payload: bytes) -> None:
        """Raise PayloadTooLarge for what the broker would not take at QoS 1; sends nothing."""
        self._limits.check(topic, payload, 1)

    def publish_and_ask(self, topic: str, payload: bytes, timeout_s: float) -> str | None:
        """Publish with QoS 1 and wait for what the broker says: None where it takes it, else its reason.

        Slower than `publish`, and for one thread at a time: it is there to try rights. Raises LinkError where
        nothing can be sent, or nothing is said in time.
        """
        self._limits.check(topic, payload, 1)
        answers: dict[int, ReasonCode] = {}

        def hear(
            _client: paho.Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Any
        ) -> None:
            with self._state:
                answers[mid] = reason
                self._state.notify_all()

        self._client.on_publish = _surviving(hear)
        try:
            mid = self._publish_acknowledged(Publication(topic, payload, retain=False)).mid
            with self._state:
                if not self._state.wait_for(lambda: mid in answers or not self._connected, timeout_s):
                    raise LinkError(f"broker {self.address} did not acknowledge a message on {topic}")
            if mid not in answers:
                raise Disconnected(self._no_link())
        finally:
            self._client.on_publish = None
        return answers[mid].getName().lower() if answers[mid].is_failure else None

    def set_birth(self, birth: Publication) -> None:
        """Publish `birth` now, if connected, and at each CONNACK from now on."""
        self._limits.check(birth.topic, birth.payload, birth.qos)
        with self._state:
            self._birth = birth
            connected = self._connected
        if connected:
            self.publish(birth.topic, birth.payload, qos=birth.qos, retain=birth.retain)

    def stop(self, farewell: Publication | None = None) -> None:
        """Publish `farewell`, disconnect so that the will is not sent, and close every inbox.

        Takes two seconds at most with a broker that has gone silent, and up to the connect timeout (5 s)
        while paho's thread is inside a connection attempt, which nothing can interrupt.
        """
        with self._state:
            if self._stopping:
                return
            self._stopping = True
        if farewell is not None:
            self._say_farewell(farewell)
        self._client.disconnect()
        with self._state:
            self._state.wait_for(lambda: self._socket is None, _FAREWELL_S)
            if self._socket is not None:  # a dead link took no DISCONNECT: end paho's wait for it
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        self._client.disconnect()  # in case the thread was between two sockets at the first one
        self._let_go()

    # -------------------------------------------------------------------------------------- publishing

    def _publish_at_most_once(self, topic: str, payload: bytes, *, retain: bool, alias: bool) -> None:
        with self._state:
            self._check_takes_more()
            sent_topic, properties = self._alias(topic) if alias else (topic, None)
            info = self._client.publish(sent_topic, payload, 0, retain, properties)
            self._check_code(info.rc)
            self._unwritten.append(info)

    def _publish_acknowledged(self, publication: Publication) -> paho.MQTTMessageInfo:
        if not self._connected:
            raise Disconnected(self._no_link())
        info = self._client.publish(
            publication.topic, publication.payload, publication.qos, publication.retain
        )
        # A message refused with "no connection" stays in paho's hands; `_on_pre_connect` takes it out again.
        self._check_code(info.rc)
        return info

    def _check_takes_more(self) -> None:
        if not self._connected:
            raise Disconnected(self._no_link())
        while self._unwritten and _is_written(self._unwritten[0]):
            self._unwritten.popleft()
        if len(self._unwritten) >= _MAX_UNWRITTEN:
            raise Disconnected(f"broker {self.address} takes no data: {_MAX_UNWRITTEN} messages wait")

    def _alias(self, topic: str) -> tuple[str, Properties | None]:
        used = self._limits.aliases.use(topic)
        if used is None:
            return topic, None
        number, is_known = used
        return "" if is_known else topic, _alias_properties(number)

    def _check_code(self, code: MQTTErrorCode) -> None:
        if code == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise LinkError(f"broker {self.address} has not acknowledged {_MAX_UNACKNOWLEDGED} messages")
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Disconnected(self._no_link())

    def _no_link(self) -> str:
        return self.last_error or f"not connected to broker {self.address}"

    def _say_farewell(self, farewell: Publication) -> None:
        try:
            self._limits.check(farewell.topic, farewell.payload, farewell.qos)
            self._publish_acknowledged(farewell).wait_for_publish(_FAREWELL_S)
        except Disconnected:
            pass  # the broker has sent the will, or will
        except (LinkError, RuntimeError, ValueError) as error:  # the last two are paho's for a lost link
            logger.warning("farewell to broker %s was not sent: %s", self.address, error)

    # ------------------------------------------------------------------------- what paho's thread calls

    def _make_client(self, will: Publication | None) -> paho.Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.address.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.username_pw_set(self.address.username, self.address.password)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_queued_messages_set(_MAX_UNACKNOWLEDGED)
        if self.address.uses_tls:
            client.tls_set_context(tls_context(self.address))
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_pre_connect = _surviving(self._on_pre_connect)
        client.on_socket_open = _surviving(self._on_socket_open)
        client.on_socket_close = _surviving(self._on_socket_close)
        client.on_connect = _surviving(self._on_connect)
        client.on_connect_fail = _surviving(self._on_connect_fail)
        client.on_disconnect = _surviving(self._on_disconnect)
        client.on_subscribe = _surviving(self._on_subscribe)
        client.on_message = _surviving(self._on_message)
        return client

    def _on_pre_connect(self, client: paho.Client, _userdata: Any) -> None:
        with self._state:
            self._connected = False
        # paho would send unacknowledged messages again, while their owners know best what is still worth
        # sending. Here and not at the disconnect, where paho may be walking over them.
        client.drop_out_messages()

    def _on_socket_open(self, _client: paho.Client, _userdata: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # off, replies wait 40 ms for an ACK
        self._bytes.open(sock)
        with self._state:
            self._socket = sock

    def _on_socket_close(self, _client: paho.Client, _userdata: Any, _sock: Any) -> None:
        self._bytes.close()
        with self._state:
            self._socket = None
            self._state.notify_all()

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: Any,
        _flags: Any,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._state:
            if reason.is_failure:
                self._health.refused(reason.value, reason.getName())
                return
            self._limits.accept(
                getattr(properties, "MaximumPacketSize", None), getattr(properties, "TopicAliasMaximum", 0)
            )
            self._unanswered.clear()
            self._unwritten.clear()
            for _, filters in self._inboxes:
                self._send_subscribe(filters)
            if self._birth is not None and not self._stopping:
                client.publish(self._birth.topic, self._birth.payload, self._birth.qos, self._birth.retain)
            self._connected = True
            self._health.accepted()
            self._state.notify_all()

    def _send_subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        asked = [(topic_filter, SubscribeOptions(qos=qos)) for topic_filter, qos in filters]
        code, packet_id = self._client.subscribe(asked)
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._unanswered.add(packet_id)

    def _on_subscribe(
        self, _client: paho.Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        with self._state:
            self._unanswered.discard(mid)
            self._state.notify_all()
        refusals = [reason.getName().lower() for reason in reasons if reason.is_failure]
        if refusals:
            who = self.address.asker
            logger.error("broker %s refused a subscription of %s: %s", self.address, who, refusals[0])

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        received_at = time.monotonic()
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        levels = topic.split("/")
        takers = [inbox for inbox, _ in self._inboxes if inbox.matches(levels)]
        for inbox in takers:
            inbox.put(Message(topic, bytes(message.payload), message.retain, received_at))
        if not takers:
            self.num_unexpected += 1
            if self._throttle.allows():
                logger.warning("broker %s sent a message on %.200r, not asked for", self.address, topic)

    def _on_connect_fail(self, _client: paho.Client, _userdata: Any) -> None:
        # paho tells no reason, but it calls this from its `except OSError`.
        error = sys.exc_info()[1]
        with self._state:
            self._delay_next_try(self._health.failed(error))

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: Any,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Any,
    ) -> None:
        with self._state:
            self._connected = False
            self._state.notify_all()
            if not self._stopping:
                by_broker = flags.is_disconnect_packet_from_server
                goodbye = (reason.value, reason.getName()) if by_broker else None
                self._delay_next_try(self._health.ended(goodbye))

    def _delay_next_try(self, delay_s: float) -> None:
        # Equal bounds switch paho's own doubling off. Annotated int, but it is only added to a time.
        self._client.reconnect_delay_set(delay_s, delay_s)  # type: ignore[arg-type]

    def _let_go(self) -> None:
        """Close the inboxes and break the reference cycle with paho, so that its sockets close now."""
        for inbox, _ in self._inboxes:
            inbox.close()
        client = self._client
        client.on_pre_connect = client.on_socket_open = client.on_socket_close = None
        client.on_connect = client.on_connect_fail = client.on_disconnect = None
        client.on_subscribe = client.on_message = None


def _surviving(callback: Callable[_P, None]) -> Callable[_P, None]:
    """A fault of ours in a callback would end paho's thread, or pass unseen; it is logged instead."""

    @functools.wraps(callback)
    def guarded(*arguments: _P.args, **named: _P.kwargs) -> None:
        try:
            callback(*arguments, **named)
        except Exception:
            logger.exception("fault in the network thread, in %s", callback.__name__)

    return guarded


def _connect_properties(max_packet_bytes: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    properties.MaximumPacketSize = max_packet_bytes  # the broker keeps what is larger from us
    return properties


@functools.cache
def _alias_properties(number: int) -> Properties:
    """Made once for each alias: paho takes 16 µs to make an empty set of properties."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.TopicAlias = number
    return properties


def _is_written(info: paho.MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (RuntimeError, ValueError):  # it was lost together with its connection
        return True
