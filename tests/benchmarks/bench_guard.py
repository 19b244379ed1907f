"""What the guard costs a request: `python tests/benchmarks/bench_guard.py`. Microseconds, the best of 7 rounds of 20,000."""

import asyncio
import time

from riverdelta.bento.access import Role
from riverdelta.bento.guard import Guard, Policy
from riverdelta.core.settings import Settings

TOKENS = {f"{role}_tokens": ",".join(f"{role}-token-number-{i}" for i in range(3)) for role in Role}
LIMITS = {"requests_per_second": 1e9, "rows_per_second": 1e9}
ROUNDS, REQUESTS = 7, 20_000


async def seconds(app):
    """Return what one request takes."""
    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer score-token-number-2"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/score", "headers": headers}
    scope |= {"client": ("127.0.0.1", 5001), "server": ("127.0.0.1", 3000)}
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(REQUESTS):
            await app(scope, None, None)
        best = min(best, (time.perf_counter() - start) / REQUESTS)
    return best


async def main():
    """Print the table."""

    async def nothing(scope, receive, send):
        return None

    bare = await seconds(nothing)
    print(f"{'guard':36}{'µs a request':>14}")
    for name, given in {
        "no tokens, no limits": {},
        "no tokens, both limits": LIMITS,
        "nine tokens, no limits": TOKENS,
        "nine tokens, both limits": {**TOKENS, **LIMITS},
    }.items():
        guarded = await seconds(Guard(nothing, Policy().open(Settings(**given))))
        print(f"{name:36}{1e6 * (guarded - bare):14.2f}")


if __name__ == "__main__":
    asyncio.run(main())
