"""Every error that Hunch raises on purpose. In: nothing. Out: exception classes.

HunchError
├── ConfigurationError      bad settings, missing files: one line for the user, exit code 2
├── ModelError              llama.cpp could not load or run a model
├── DownloadError           a model file could not be brought here now; trying again may help
├── LinkError               the broker could not be used
│   ├── Disconnected        no connection at the moment
│   └── PayloadTooLarge     larger than the broker takes; never handed to the network
└── WireError               a message broke the rules of the wire
    ├── Truncated           ended before a field was complete
    ├── TrailingBytes       went on after the last field
    ├── UnsupportedVersion  written for another protocol version
    ├── UnknownKind         no such frame kind, flag or topic
    ├── OutOfRange          a value outside its bounds, ids and weights included
    ├── TooLarge            longer than allowed, compressed or not
    ├── BadCompression      zstd refused the body
    └── UnknownCodebook     written with a codebook that this side does not hold
"""

from __future__ import annotations


class HunchError(Exception):
    """Base of all errors that Hunch raises on purpose; its text is one line fit for a user."""


class ConfigurationError(HunchError):
    """Settings, files or arguments are unusable; the text names what was wrong and the mend."""


class ModelError(HunchError):
    """llama.cpp could not load or run a model."""


class DownloadError(HunchError):
    """A model file could not be brought here now; what came is kept, and trying again may help."""


class LinkError(HunchError):
    """The broker could not be used."""


class Disconnected(LinkError):
    """There is no connection to the broker at the moment."""


class PayloadTooLarge(LinkError):
    """A payload exceeds what the broker takes, so it was not handed to the network."""

    def __init__(self, topic: str, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"payload for {topic} has {size_bytes} bytes, the broker takes {max_bytes}")
        self.topic, self.size_bytes, self.max_bytes = topic, size_bytes, max_bytes


class WireError(HunchError):
    """A message broke the rules of the wire.

    `what` names the field; `offset` is the byte, counted from the start of the frame or of its
    decompressed body, at which the rule broke (None where no single byte is at fault).
    """

    def __init__(self, what: str, why: str, offset: int | None = None) -> None:
        place = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{what}{place}: {why}")
        self.what, self.why, self.offset = what, why, offset


class Truncated(WireError):
    """The frame ended before a field was complete."""


class TrailingBytes(WireError):
    """The frame went on after its last field."""


class UnsupportedVersion(WireError):
    """The frame was written for another protocol version."""


class UnknownKind(WireError):
    """No such frame kind, flag or topic."""


class OutOfRange(WireError):
    """A value lies outside its bounds."""


class TooLarge(WireError):
    """The frame is longer than allowed, before or after decompression."""


class BadCompression(WireError):
    """zstd refused the compressed body."""


class UnknownCodebook(WireError):
    """The body was written with a codebook that this side does not hold."""
