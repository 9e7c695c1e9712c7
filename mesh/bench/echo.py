"""A bare NATS responder in a process of its own: what an inference request is compared with."""

from __future__ import annotations

import asyncio
import sys

import nats
import uvloop
from nats.aio.msg import Msg


async def serve(url: str, subject: str, seed_file: str, inbox: str) -> None:
    """Sends every request's payload back until the process is ended."""
    client = await nats.connect(url, nkeys_seed=seed_file, inbox_prefix=inbox)

    async def answer(message: Msg) -> None:
        await client.publish(message.reply, message.data, headers=message.headers)

    await client.subscribe(subject, cb=answer)
    await client.flush()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:5]))
