#!/usr/bin/env python3
"""Times flash-kmeans (pip install flash-kmeans) on a CUDA device.

Through its public interface, on standard normal data, for one shape:

    time_flash_kmeans.py n k d

prints one line of JSON: milliseconds per iteration for float32 and float16
input, from the difference between trainings of 5 and of 25 iterations (so
that start-up does not count), each the median of 5.

flash_bench_cuda --flash-kmeans calls it for each of its shapes.
"""

import json
import statistics
import sys
import time


def iteration_ms(n, k, d, dtype):
    import torch
    from flash_kmeans import FlashKMeans

    torch.manual_seed(1)
    x = torch.randn(n, d, device="cuda", dtype=dtype)

    def seconds(niter):
        # a negative tolerance never stops early
        kmeans = FlashKMeans(d=d, k=k, niter=niter, tol=-1.0)
        torch.cuda.synchronize()
        start = time.perf_counter()
        kmeans.train(x)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    for niter in (5, 25):
        seconds(niter)  # compiles its kernels
    few = statistics.median(seconds(5) for _ in range(5))
    many = statistics.median(seconds(25) for _ in range(5))
    return (many - few) / 20 * 1e3


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    n, k, d = (int(a) for a in sys.argv[1:])
    try:
        import torch

        import flash_kmeans
    except ImportError as error:
        sys.exit(f"time_flash_kmeans.py: {error}")
    row = {"library": "flash-kmeans", "version": flash_kmeans.__version__}
    row["torch"] = torch.__version__
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        row[f"iteration_ms_{name}"] = iteration_ms(n, k, d, dtype)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
