"""What the service needs from the outside, one Protocol a file. The adapters are in `store/` and `embedder/`.

The same contract suite (`tests/contract`) runs on the in-memory fakes and on the real adapters. Every write takes its
own time (`now`), so that the caller and its tests own the clock.
"""
