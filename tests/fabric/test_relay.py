"""The emulated link: pacing as a pure function, and a real relay that delivers, is cut and heals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
from fabric_mesh import until
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.clock import ManualClock
from mesh.errors import PortInUseError
from mesh.fabric.pacing import Pace, admit
from mesh.fabric.relay import Relay


def test_an_unlimited_link_only_delays() -> None:
    clock = ManualClock()
    pace = Pace(latency_s=0.009)
    for _ in range(3):
        pace, arrives = admit(pace, 10**9, clock.monotonic())
        assert arrives == clock.monotonic() + 0.009
        clock.advance(1.0)


def test_a_limited_link_sends_a_burst_at_once_and_then_keeps_its_pace() -> None:
    clock = ManualClock()
    pace = Pace(latency_s=0.004, bandwidth_bps=8e6)
    assert pace.burst_bytes == 5000
    arrivals = []
    for _ in range(101):
        pace, arrives = admit(pace, 1000, clock.monotonic())
        arrivals.append(arrives)
    assert arrivals[:5] == [0.004] * 5
    assert arrivals[-1] == pytest.approx(0.004 + (101_000 - 5000) / 1e6)
    clock.advance(10.0)
    assert admit(pace, 1000, clock.monotonic())[1] == clock.monotonic() + 0.004


@given(
    st.lists(st.tuples(st.integers(1, 65536), st.floats(0, 0.1)), min_size=1, max_size=60),
    st.floats(1e5, 1e9),
    st.floats(0, 0.2),
)
def test_chunks_arrive_in_order_never_early_and_never_above_the_bandwidth(
    chunks: list[tuple[int, float]], bandwidth_bps: float, latency_s: float
) -> None:
    clock = ManualClock()
    pace = Pace(latency_s, bandwidth_bps)
    sent, last = 0, 0.0
    for size, pause in chunks:
        clock.advance(pause)
        pace, arrives = admit(pace, size, clock.monotonic())
        sent += size
        assert arrives >= max(last, clock.monotonic() + latency_s)
        assert sent <= pace.burst_bytes + (arrives - latency_s) * bandwidth_bps / 8 * (1 + 1e-9) + 1e-3
        last = arrives


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends everything back, then the end."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(4096):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    writer.close()


@contextlib.asynccontextmanager
async def relayed(latency_s: float = 0.0, bandwidth_bps: float | None = None) -> AsyncIterator[Relay]:
    target = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    try:
        async with Relay(0, "127.0.0.1", port, latency_s, bandwidth_bps) as relay:
            yield relay
    finally:
        target.close()
        await target.wait_closed()


async def echoed(relay: Relay, chunks: list[bytes]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        async with asyncio.timeout(20):
            reading = asyncio.create_task(reader.read(-1), name="read what comes back")
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
            return await reading
    finally:
        writer.close()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=3000) | st.just(b"x" * 150_000), max_size=12),
    st.sampled_from([(0.0, None), (0.001, None), (0.001, 1e9)]),
)
def test_bytes_arrive_whole_however_they_are_cut_up(chunks: list[bytes], link: tuple[float, float | None]) -> None:
    async def scenario() -> None:
        async with relayed(*link) as relay:
            sent = b"".join(chunks)
            assert await echoed(relay, chunks) == sent
            assert (relay.bytes_up, relay.bytes_down) == (len(sent), len(sent))

    asyncio.run(scenario())


def test_a_round_trip_takes_twice_the_latency_and_a_load_its_bandwidth() -> None:
    async def scenario() -> None:
        async with relayed(0.03, 40e6) as relay:
            begin = time.monotonic()
            assert len(await echoed(relay, [b"x" * 500_000])) == 500_000
            assert time.monotonic() - begin >= 0.06 + (500_000 - 25_000) * 8 / 40e6

    asyncio.run(scenario())


def test_nothing_flows_while_cut_and_everything_after_heal() -> None:
    async def scenario() -> None:
        async with relayed(0.001) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            relay.cut()
            relay.cut()
            assert relay.is_cut
            late_reader, late_writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"two")
            late_writer.write(b"late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(3), 0.1)
            assert (relay.bytes_up, relay.connections) == (3, 2)
            assert not reader.at_eof()
            relay.heal()
            assert await asyncio.wait_for(reader.readexactly(3), 5) == b"two"
            assert await asyncio.wait_for(late_reader.readexactly(4), 5) == b"late"
            writer.close()
            late_writer.close()
            await until(lambda: settled(lambda: relay.connections == 0), "connections end with their ends")

    asyncio.run(scenario())


async def settled(condition: Callable[[], bool]) -> bool:
    return condition()


def test_an_end_during_a_cut_is_felt_only_after_heal() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            await reader.read(-1)
            ended.set()
            writer.close()

        server = await asyncio.start_server(target, "127.0.0.1", 0)
        async with Relay(0, "127.0.0.1", server.sockets[0].getsockname()[1]) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            assert await reader.readexactly(5) == b"hello"
            relay.cut()
            writer.close()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.1)
            relay.heal()
            await asyncio.wait_for(ended.wait(), 5)
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


def test_connections_given_up_during_a_cut_do_not_pile_up() -> None:
    async def scenario() -> None:
        async with relayed() as relay:
            relay.cut()
            for _ in range(100):
                _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.close()
            await until(lambda: settled(lambda: relay.connections == 0), "held connections end")
            relay.heal()
            assert await echoed(relay, [b"x"]) == b"x"

    asyncio.run(scenario())


def test_a_slow_reader_slows_the_sender() -> None:
    """What the relay holds is bounded: a sender cannot push more than the window and the sockets' buffers."""

    async def scenario() -> None:
        async with relayed() as relay:
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            relay.cut()
            pushed = 0
            with contextlib.suppress(TimeoutError):
                while pushed < 2**28:
                    writer.write(b"x" * 2**20)
                    await asyncio.wait_for(writer.drain(), 0.3)
                    pushed += 2**20
            assert pushed < 2**26
            writer.transport.abort()

    asyncio.run(scenario())


def test_an_absent_target_ends_the_connection() -> None:
    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            async with Relay(0, "127.0.0.1", port) as relay:
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(1), 5) == b""
                writer.close()

    asyncio.run(scenario())


def test_a_taken_port_is_named_and_a_closed_relay_frees_its_own() -> None:
    async def scenario() -> None:
        async with relayed() as relay:
            port = relay.port
            assert await echoed(relay, [b"x"]) == b"x"
            with pytest.raises(PortInUseError, match=str(port)):
                await Relay(port, "127.0.0.1", 1).start()
        again = Relay(port, "127.0.0.1", 1, cut=True)
        await again.start()
        assert again.is_cut
        await again.aclose()
        await again.aclose()

    asyncio.run(scenario())
