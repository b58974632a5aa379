"""The demo: a real broker, generated events, and a verification that reads the topics back.

The end-to-end tests and the benchmarks use the same parts, so the demo shows what the tests prove.
"""
