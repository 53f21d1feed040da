"""Random numbers as a function of counters: no state, so no order of calls and no worker can change them."""

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the step of Weyl's sequence in splitmix64
_MASK = (1 << 64) - 1

Counter = int | npt.NDArray[np.int64]


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of splitmix64 (Steele, Lea, Flood 2014): every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _counter(value: Counter) -> npt.NDArray[np.uint64]:
    if isinstance(value, int):
        return np.array([value & _MASK], dtype=np.uint64)
    return np.atleast_1d(np.asarray(value, dtype=np.int64)).astype(np.uint64)


def keys(*counters: Counter) -> npt.NDArray[np.uint64]:
    """Hash counters such as (seed, epoch, index) to one 64-bit key each.

    Args:
        counters: integers or int64 arrays (B,), broadcast against each other; their order matters.

    Returns:
        uint64 (B,), B = 1 if all were integers.
    """
    key = np.zeros(1, dtype=np.uint64)
    for counter in counters:
        key = _mix(key + _counter(counter) + np.uint64(_GOLDEN))
    return key


def uniform(count: int, *counters: Counter) -> npt.NDArray[np.float64]:
    """Uniform numbers that depend on the counters alone.

    Args:
        count: how many per key.
        counters: as for `keys`.

    Returns:
        float64 (B, count) in [0, 1).
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = _mix(keys(*counters)[:, None] + steps[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
