"""What benchmarks/on_gpu.sh runs on a GPU machine: a module a step. See benchmarks/on_gpu.md."""
