"""The demonstration: a real broker, made-up events, and a judge who reads the topics back.

The end-to-end tests and the benchmarks are built from the same parts, so what the demonstration shows is
what the tests prove.
"""
