"""Work that other threads of a job do meanwhile. What none of them has begun is done by the one that needs it, so that it waits only for what is being done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Task(Generic[Result]):
    """Work handed to the helpers."""

    def __init__(self, work: Callable[[], Result], future: Future[Result]) -> None:
        self._work = work
        self._future = future

    @property
    def done(self) -> bool:
        """Whether it came to its end, or failed."""
        return self._future.done()

    def do(self) -> None:
        """Do it in this thread, unless another one has begun it or it was dropped."""
        if self._future.cancelled() or not self._future.cancel():
            return
        self._future = Future()
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)  # for whoever asks for the result, as another thread's is
            if not isinstance(error, Exception):
                raise

    def result(self, meanwhile: Iterable[Task[Any]] = ()) -> Result:
        """What the work returned, or the error it raised. Where another thread is at it, what is not begun of ``meanwhile`` is done until it has ended."""
        self.do()
        for task in meanwhile:
            if self.done:
                break
            task.do()
        return self._future.result()

    def drop(self) -> None:
        """Do not begin it; where it was begun, wait for its end."""
        if not self._future.cancel():
            self._future.exception()


class Helpers:
    """So many threads that do tasks, in the order in which they are given to them; with none, who needs a result does the task."""

    def __init__(self, count: int = 0) -> None:
        self._threads = ThreadPoolExecutor(count) if count > 0 else None

    def __bool__(self) -> bool:
        return self._threads is not None

    def begin(self, work: Callable[..., Result], *arguments: Any) -> Task[Result]:
        """Let a thread do this as soon as one is free."""
        bound = partial(work, *arguments)
        return Task(bound, self._threads.submit(bound) if self._threads else Future())

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads; tasks that are not begun are left."""
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
