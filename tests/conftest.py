"""Settings that every test shares: one BLAS thread, and the hypothesis profiles.

`ci` (the default) draws the same few examples on every run, so that a red run can be repeated;
`HYPOTHESIS_PROFILE=soak` draws many new ones and remembers those that failed.
Neither has a deadline: no test asserts on time.
"""

import os

from hypothesis import HealthCheck, settings

# Read by numpy's BLAS when it loads, which is after this file. The products here are small: more
# threads than idle cores make them many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "ci",
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "soak",
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
