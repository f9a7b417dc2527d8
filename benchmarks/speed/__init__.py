"""`python -m benchmarks.speed`: medexp beside its peers, in turn, each in a process of its own."""
