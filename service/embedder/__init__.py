"""Models: encoding, reranking, training.

OpenMP threads of models wait for each other after each operation. Spinning there for milliseconds, as they do by
default, takes the processor from everything else on a busy machine: with two threads on two busy cores a pass took
five times the processor time of the same pass that sleeps. The libraries read these variables when they are loaded.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# GNU's library, which torch brings, then sleeps at once. So many looks take microseconds and catch most equal shares.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
