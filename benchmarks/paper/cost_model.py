"""The papers' own cost model, applied to what was measured. In: shares, bits, rates. Out: throughput. Pure.

As U-HLM (arXiv:2412.12687) and CU-HLM (arXiv:2505.11788) charge it: a token costs the draft model's time, and, where
it is sent, the upload's bits over the uplink's rate and the target model's time. Round trips, the downlink, the ids
of skipped tokens, the target's catch-up over them and the prompt cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

# The vocabulary of the papers' pair, whose full upload is 92,000 bytes.
PAPER_VOCABULARY = 32_000


@dataclass(frozen=True)
class Times:
    """Seconds a token of the two models, each alone."""

    draft_s: float
    target_s: float


def token_s(times: Times, share_sent: float, upload_bytes: float, up_bits_s: float) -> float:
    """Mean seconds a token, where `share_sent` of all are sent with `upload_bytes` each."""
    return times.draft_s + share_sent * (upload_bytes * 8 / up_bits_s + times.target_s)


def gain(times: Times, share_sent: float, upload_bytes: float, full_bytes: float, up_bits_s: float) -> float:
    """Throughput over that of full upload: every token sent with `full_bytes`."""
    full_s = token_s(times, 1.0, full_bytes, up_bits_s)
    return full_s / token_s(times, share_sent, upload_bytes, up_bits_s)


def compression(upload_bytes: float, full_bytes: float) -> float:
    """The share of a full upload that is not sent for a token in doubt."""
    return 1.0 - upload_bytes / full_bytes
