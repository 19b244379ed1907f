"""Load: requests that are bytes before they are sent, in a closed loop or at a fixed rate."""

import asyncio
import itertools
import time

import grpc
import numpy as np


class HttpConnection:
    """One keep-alive connection; `call` sends a body and returns the answer's."""

    def __init__(self, port, path):
        self.port = port
        self.head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def call(self, body):
        self.writer.write(f"{self.head}{len(body)}\r\n\r\n".encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
        answer = await self.reader.readexactly(int(fields[b"content-length"]))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]!r}: {answer[:300]!r}")
        return answer

    async def close(self):
        self.writer.close()
        await self.writer.wait_closed()


class GrpcConnection:
    """One HTTP/2 channel of its own, so that channels spread over workers."""

    def __init__(self, port, method):
        self.port, self.method = port, method

    async def open(self):
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)
        self.call = self.channel.unary_unary(self.method)
        await self.channel.channel_ready()

    async def close(self):
        await self.channel.close()


async def _open(connections):
    for connection in connections:
        await connection.open()


async def _close(connections):
    for connection in connections:
        await connection.close()


async def closed_loop(connections, bodies, seconds, warm_up, at_start):
    """Each connection sends its next request when it has its answer; return latencies from after the warm-up."""
    await _open(connections)
    latencies = []
    begin = time.perf_counter() + warm_up

    async def run(connection, number):
        for body in itertools.islice(itertools.cycle(bodies), number, None):
            sent = time.perf_counter()
            if sent >= begin + seconds:
                return
            await connection.call(body)
            if sent >= begin:
                latencies.append(time.perf_counter() - sent)

    tasks = [asyncio.create_task(run(c, i)) for i, c in enumerate(connections)]
    await asyncio.sleep(warm_up)
    at_start()
    await asyncio.gather(*tasks)
    await _close(connections)
    return np.array(latencies)


async def open_loop(connections, bodies, rate, seconds):
    """Send `rate` requests a second whatever comes back; a latency counts from when the request was due."""
    await _open(connections)
    free = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)
    latencies, calls = [], []
    begin = time.perf_counter()

    async def one(body, due):
        connection = await free.get()
        await connection.call(body)
        free.put_nowait(connection)
        latencies.append(time.perf_counter() - due)

    for number, body in zip(range(int(rate * seconds)), itertools.cycle(bodies), strict=False):
        due = begin + number / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        calls.append(asyncio.create_task(one(body, due)))
    await asyncio.gather(*calls)
    await _close(connections)
    return np.array(latencies)
