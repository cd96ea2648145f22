"""What several tests of the contract draw their examples from."""

from __future__ import annotations

from hypothesis import strategies as st

from schemas.sampling import SamplingParameters

SAMPLING = st.builds(
    SamplingParameters,
    temperature=st.just(0.0) | st.floats(1e-3, 10),
    top_k=st.none() | st.integers(1, 2**20),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
)
