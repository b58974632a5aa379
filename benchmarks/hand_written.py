"""What a competent team writes by hand: at-least-once, and one outcome for each record.

confluent-kafka in large gulps, orjson, httpx on uvloop, requests in parallel with their offsets committed in order, the
collector of cycles calmed as the connector calms it.
It has no verdicts, retries, holds, in-doubt records, validation or metrics: it shows what speed costs without them.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import orjson
import typer
import uvloop
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.baseline import FAST_CONSUMER, FAST_PRODUCER
from connector.memory import calm_collector

BATCH = 1_000
COMMIT_SECS = 0.5


@dataclass
class HandWritten:
    """A consumer whose requests run in parallel; results are written and offsets committed in the order of reading."""

    consumer: Consumer
    producer: Producer
    client: httpx.AsyncClient
    source: str
    target: str
    offsets: dict[int, int] = field(default_factory=dict)

    async def run(self, in_flight: int) -> None:
        """Read and write until the process is ended."""
        tasks: asyncio.Queue[asyncio.Task[list[tuple[Message, bytes]]]] = asyncio.Queue(in_flight - 1)
        await asyncio.gather(self._read(tasks), self._write(tasks))

    async def _read(self, tasks: asyncio.Queue[Any]) -> None:
        while True:
            messages = await asyncio.to_thread(self.consumer.consume, 5 * BATCH, 0.1)
            for start in range(0, len(messages), BATCH):
                await tasks.put(asyncio.create_task(self._post(messages[start : start + BATCH])))

    async def _post(self, messages: list[Message]) -> list[tuple[Message, bytes]]:
        events = [orjson.loads(message.value() or b"null") for message in messages]
        body = orjson.dumps({"messages": events})
        reply = await self.client.post("send/bulk", content=body, headers={"Content-Type": "application/json"})
        reply.raise_for_status()
        errors = {error["index"]: error["code"] for error in reply.json()["errors"]}
        return [
            (
                message,
                orjson.dumps(
                    {
                        "status": "failed" if index in errors else "queued",
                        "code": errors.get(index),
                        "partition": message.partition(),
                        "offset": message.offset(),
                        "to": event["to"],
                    }
                ),
            )
            for index, (message, event) in enumerate(zip(messages, events, strict=True))
        ]

    async def _write(self, tasks: asyncio.Queue[asyncio.Task[list[tuple[Message, bytes]]]]) -> None:
        commit_at = time.monotonic() + COMMIT_SECS
        while True:
            try:
                task = await asyncio.wait_for(tasks.get(), 0.1)
            except TimeoutError:
                pass
            else:
                for message, outcome in await task:
                    self._produce(outcome, message.key())
                    self.offsets[message.partition() or 0] = (message.offset() or 0) + 1
            if self.offsets and time.monotonic() > commit_at:
                await asyncio.to_thread(self.producer.flush)
                spots = [TopicPartition(self.source, number, offset) for number, offset in self.offsets.items()]
                await asyncio.to_thread(self.consumer.commit, offsets=spots, asynchronous=False)
                self.offsets.clear()
                commit_at = time.monotonic() + COMMIT_SECS

    def _produce(self, outcome: bytes, key: Any) -> None:
        while True:
            try:
                self.producer.produce(self.target, outcome, key)
            except BufferError:
                self.producer.poll(0.05)
            else:
                return


def main(
    *,
    bootstrap_servers: Annotated[str, typer.Option()],
    source: Annotated[str, typer.Option()],
    target: Annotated[str, typer.Option()],
    group: Annotated[str, typer.Option()],
    base_url: Annotated[str, typer.Option()],
    in_flight: Annotated[int, typer.Option()] = 64,
) -> None:
    """Run until the process is ended."""

    async def run() -> None:
        consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, **FAST_CONSUMER})
        producer = Producer({"bootstrap.servers": bootstrap_servers, **FAST_PRODUCER})
        consumer.subscribe([source])
        limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        async with httpx.AsyncClient(
            base_url=base_url, headers={"X-Api-Key": "trk_x"}, limits=limits, timeout=30, trust_env=False
        ) as client:
            await HandWritten(consumer, producer, client, source, target).run(in_flight)

    calm_collector()
    uvloop.run(run())


if __name__ == "__main__":
    typer.run(main)
