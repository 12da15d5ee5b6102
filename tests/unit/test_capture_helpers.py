"""Work that other threads do meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from brokerlens.capture.helpers import Helpers


def name_of_thread() -> str:
    return threading.current_thread().name


def fail() -> None:
    raise OSError("gone")


class Held:
    """Work that takes until it is told to end; then it does the rest."""

    def __init__(self, rest: Callable[[], object] = name_of_thread) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self._rest = rest

    def __call__(self) -> object:
        self.begun.set()
        assert self.end.wait(10)
        return self._rest()


@pytest.mark.parametrize("helping", [0, 1, 3])
def test_work_is_done_once_and_gives_its_result_or_error(helping: int) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return 2 * number

    with Helpers(helping) as helpers:
        assert bool(helpers) == (helping > 0)
        tasks = [helpers.begin(work, number) for number in range(50)]
        failing = helpers.begin(fail)
        for task in tasks[::2]:
            task.do()
        assert [task.result(meanwhile=tasks) for task in tasks] == [2 * number for number in range(50)]
        with pytest.raises(OSError, match="gone"):
            failing.result()
        failing.drop()
    assert sorted(done) == list(range(50))


def test_who_needs_a_result_does_what_is_not_begun() -> None:
    hold, me = Held(), name_of_thread()

    def let_go() -> str:
        hold.end.set()
        return name_of_thread()

    with Helpers(1) as helpers:
        held, first, last = (helpers.begin(work) for work in (hold, name_of_thread, let_go))
        assert hold.begun.wait(10)
        assert first.result() == me
        assert held.result(meanwhile=[first, last]) != me
        assert last.result() == me


def test_an_error_of_what_is_done_meanwhile_is_its_own() -> None:
    hold = Held()
    with Helpers(1) as helpers:
        held, failing, last = helpers.begin(hold), helpers.begin(fail), helpers.begin(hold.end.set)
        assert hold.begun.wait(10)
        held.result(meanwhile=[failing, last])
        with pytest.raises(OSError, match="gone"):
            failing.result()


@pytest.mark.parametrize("work", [name_of_thread, fail])
def test_work_that_is_dropped_is_waited_for_where_it_was_begun_and_else_never_done(work: Callable[[], object]) -> None:
    ran = threading.Event()

    def rest() -> object:
        ran.set()
        return work()

    hold = Held(rest)
    with Helpers(1) as helpers:
        held, left = helpers.begin(hold), helpers.begin(pytest.fail, "it was dropped")
        assert hold.begun.wait(10)
        left.drop()
        threading.Timer(0.05, hold.end.set).start()
        held.drop()
        assert ran.is_set()
        left.drop()
        left.do()
        with pytest.raises(CancelledError):
            left.result()


def test_nothing_is_done_meanwhile_for_what_is_done() -> None:
    first, second = (Helpers().begin(work) for work in (name_of_thread, fail))
    first.result(meanwhile=[second])
    assert first.done
    assert not second.done


def test_work_that_was_interrupted_is_not_done_again() -> None:
    asked = []

    def interrupted() -> None:
        asked.append(1)
        raise KeyboardInterrupt

    task = Helpers().begin(interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            task.result()
    assert asked == [1]


def test_so_many_threads_work_at_once_and_end() -> None:
    before, together = threading.active_count(), threading.Barrier(3)
    with Helpers(3) as helpers:
        tasks = [helpers.begin(together.wait, 10) for _ in range(3)]
        while not all(task.done for task in tasks):
            time.sleep(1e-3)
        assert sorted(task.result() for task in tasks) == [0, 1, 2]
    assert threading.active_count() == before


def test_work_that_is_not_begun_is_left_at_the_end() -> None:
    hold, ran = Held(), threading.Event()
    with Helpers(1) as helpers:
        helpers.begin(hold)
        helpers.begin(ran.set)
        assert hold.begun.wait(10)
        threading.Timer(0.05, hold.end.set).start()
    assert not ran.is_set()
