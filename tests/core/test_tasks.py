"""Background tasks: named, watched, and ended in one order by those who started them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from mesh.errors import FabricError
from mesh.tasks import Tasks


def in_loop(work: Callable[[Tasks], Awaitable[None]]) -> None:
    async def run() -> None:
        tasks = Tasks()
        try:
            await work(tasks)
        finally:
            await tasks.aclose()

    asyncio.run(run())


async def fails(error: BaseException) -> None:
    raise error


async def forever() -> None:
    await asyncio.Event().wait()


def test_task_runs_under_its_name() -> None:
    async def work(tasks: Tasks) -> None:
        assert tasks.start("the work", forever()).get_name() == "the work"

    in_loop(work)


def test_task_that_ends_by_itself_is_no_failure() -> None:
    async def work(tasks: Tasks) -> None:
        async def answer() -> int:
            return 7

        assert await tasks.start("answer", answer()) == 7
        assert not tasks.failed.is_set()
        assert tasks.error is None

    in_loop(work)


def test_failure_is_told_to_whoever_waits() -> None:
    async def work(tasks: Tasks) -> None:
        error = ValueError("broken")
        tasks.start("breaks", fails(error))
        await asyncio.wait_for(tasks.failed.wait(), 5.0)
        assert tasks.error is error

    in_loop(work)


def test_first_of_several_failures_is_kept() -> None:
    async def work(tasks: Tasks) -> None:
        first = ValueError("first")
        both = [tasks.start("one", fails(first)), tasks.start("two", fails(ValueError("second")))]
        await asyncio.wait(both)
        assert tasks.error is first

    in_loop(work)


def test_failure_does_not_end_the_others() -> None:
    async def work(tasks: Tasks) -> None:
        other = tasks.start("goes on", forever())
        tasks.start("breaks", fails(ValueError("broken")))
        await asyncio.wait_for(tasks.failed.wait(), 5.0)
        assert not other.done()

    in_loop(work)


def test_expected_failure_is_logged_in_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    async def work(tasks: Tasks) -> None:
        tasks.start("links", fails(FabricError("the link is down", "wait")))
        await asyncio.wait_for(tasks.failed.wait(), 5.0)

    with caplog.at_level(logging.ERROR, "mesh.tasks"):
        in_loop(work)
    (record,) = caplog.records
    assert record.getMessage() == "the task links ended with FabricError: the link is down; wait"
    assert record.exc_info is None


def test_unexpected_failure_is_logged_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def work(tasks: Tasks) -> None:
        tasks.start("breaks", fails(KeyError("x")))
        await asyncio.wait_for(tasks.failed.wait(), 5.0)

    with caplog.at_level(logging.ERROR, "mesh.tasks"):
        in_loop(work)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_closing_ends_the_newest_first_and_each_before_the_next() -> None:
    told: list[str] = []

    async def careful(name: str) -> None:
        try:
            await forever()
        finally:
            told.append(f"{name} ends")
            await asyncio.sleep(0)
            told.append(f"{name} ended")

    async def work(tasks: Tasks) -> None:
        for name in ("one", "two"):
            tasks.start(name, careful(name))
        await asyncio.sleep(0)
        await tasks.aclose()

    in_loop(work)
    assert told == ["two ends", "two ended", "one ends", "one ended"]


def test_closing_is_no_failure() -> None:
    async def work(tasks: Tasks) -> None:
        task = tasks.start("goes on", forever())
        await tasks.aclose()
        assert task.cancelled()
        assert not tasks.failed.is_set()

    in_loop(work)


def test_failure_while_closing_is_kept_and_the_rest_is_still_closed() -> None:
    async def breaks_at_the_end() -> None:
        try:
            await forever()
        finally:
            raise ValueError("cannot clean up")

    async def work(tasks: Tasks) -> None:
        first = tasks.start("first", forever())
        tasks.start("second", breaks_at_the_end())
        await asyncio.sleep(0)
        await tasks.aclose()
        assert first.cancelled()
        assert isinstance(tasks.error, ValueError)

    in_loop(work)


def test_closing_twice_and_closing_nothing_are_harmless() -> None:
    async def work(tasks: Tasks) -> None:
        await tasks.aclose()
        task = tasks.start("goes on", forever())
        await tasks.aclose()
        await tasks.aclose()
        assert task.cancelled()

    in_loop(work)


def test_closing_leaves_tasks_of_others_alone() -> None:
    async def work(tasks: Tasks) -> None:
        others = Tasks()
        theirs = others.start("theirs", forever())
        tasks.start("ours", forever())
        await tasks.aclose()
        assert not theirs.done()
        await others.aclose()

    in_loop(work)
