"""Settings that every test runs under."""

import os

# Simulated devices for the parallel tests. NPROC: without it, eight of them on two cores stall in
# the all-reduce rendezvous. Both are read when jax is imported, so they must be set here.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("KERAS_BACKEND", "jax")
