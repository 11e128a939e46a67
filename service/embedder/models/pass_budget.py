"""How many tokens one forward pass of one model may have, and in how many threads it runs."""

FIRST_TOKENS, MIN_TOKENS = 512, 256
"""Padded tokens of a time-limited pass before its rate was measured, and its minimum."""

TOKENS_PER_THREAD = 32
"""Padded tokens of a pass on CPU that justify another thread. On 2 cores a second thread takes a short query from 3.0
to 2.6 ms on a quiet machine; on a busy one the threads wait for each other, and the 95th percentile rises from 8 to
270 ms."""

CPU_BATCH_TOKENS = 4096
"""Padded tokens of one pass on CPU. On one core in bfloat16 (all-MiniLM-L6-v2, SciFact, processor time) 512 / 2,048 /
4,096 / 8,192 / 16,384 tokens give 0.91 / 0.97 / 1 / 0.99 / 0.85 of the best rate: small passes read the weights too
often, large ones push the activations out of the cache."""

CPU_PASS_OVERHEAD = 64
"""Cost of one more pass on CPU, in padded tokens: see the rates above."""

GPU_PASS_OVERHEAD = 8192
"""The same on a GPU: a pass launches hundreds of kernels, which a small batch does not hide."""

_SMOOTHING = 0.2
_GROWTH = 1.02


class PassBudget:
    """Padded tokens that fit the memory of the device and, by the rate measured so far, a given time.

    Every model object has one of its own. Running out of memory halves it; passes that fill it let it grow back slowly,
    since whatever else took the memory may be gone.
    """

    def __init__(self, most: int) -> None:
        """`most`: tokens that suit the device."""
        self._most = self._fitting = float(most)
        self._rate = 0.0

    def tokens(self, seconds: float | None = None) -> int:
        """The budget of a pass that is to take at most `seconds`; None: of any length."""
        if seconds is None:
            return int(self._fitting)
        return int(min(self._fitting, max(MIN_TOKENS, seconds * self._rate) if self._rate else FIRST_TOKENS))

    def record(self, tokens: int, seconds: float) -> None:
        """A pass of so many padded tokens succeeded."""
        if tokens >= MIN_TOKENS:  # a smaller one costs about the same however small it is
            rate = tokens / max(seconds, 1e-4)
            self._rate += (_SMOOTHING if self._rate else 1.0) * (rate - self._rate)
        if 2 * tokens > self._fitting:
            self._fitting = min(self._most, _GROWTH * self._fitting)

    def shrink(self, tokens: int) -> None:
        """The device had no room for a pass of so many padded tokens."""
        self._fitting = max(1.0, min(self._fitting, tokens // 2))


def pass_overhead(batch_tokens: int) -> int:
    """Fixed cost of one more pass, in padded tokens, on a device whose passes suit so many."""
    return CPU_PASS_OVERHEAD if batch_tokens <= CPU_BATCH_TOKENS else GPU_PASS_OVERHEAD


def threads_for(tokens: int, most: int) -> int:
    """How many threads a pass of `tokens` padded tokens uses on CPU, of `most`."""
    return max(1, min(most, tokens // TOKENS_PER_THREAD))
