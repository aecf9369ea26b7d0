"""Heavy work in its own thread: order, progress, stopping, failures, and that nothing grows."""

from __future__ import annotations

import threading

import pytest

from oodream.studio.tasks import KEPT, Task, Worker
from tests.helpers.studio import client

SECONDS = 60


def over(task: Task) -> Task:
    assert task.over.wait(SECONDS)
    return task


def test_tasks_are_done_in_their_order_and_say_how_far_they_are():
    worker, order, halfway, go_on = Worker(), [], threading.Event(), threading.Event()

    def long(task: Task) -> str:
        task.progress(0.5, "half of it")
        halfway.set()
        assert go_on.wait(SECONDS)
        order.append(1)
        return "result"

    first = worker.submit("long", long)
    second = worker.submit("short", lambda _: order.append(2))
    assert halfway.wait(SECONDS)
    about = {"id": first.id, "what": "long", "state": "running", "message": "half of it", "error": ""}
    assert first.to_json() == {**about, "progress": 0.5}
    assert second.to_json()["state"] == "waiting"
    go_on.set()
    assert over(second).state == over(first).state == "done"
    assert (order, first.result, first.share) == ([1, 2], "result", 1.0)


def test_a_task_is_stopped_at_its_next_word_and_one_that_waits_does_not_begin():
    worker, begun, done = Worker(), threading.Event(), []

    def endless(task: Task) -> None:
        while True:
            begun.set()
            task.progress(0.1)

    first = worker.submit("endless", endless)
    second = worker.submit("never", done.append)
    assert begun.wait(SECONDS)
    second.stop()
    first.stop()
    assert over(first).state == over(second).state == "stopped"
    assert done == []


def test_failures_are_said_and_the_next_task_is_done(capsys):
    worker = Worker()

    def refuse(_: Task) -> None:
        raise ValueError("Choose another.")

    def fault(_: Task) -> None:
        raise KeyError("x")

    assert over(worker.submit("refused", refuse)).to_json()["error"] == "Choose another."
    failed = over(worker.submit("fault", fault))
    assert failed.state == "failed"
    assert "terminal" in failed.error
    assert "KeyError" in capsys.readouterr().err
    assert over(worker.submit("next", lambda _: 7)).result == 7


def test_of_one_key_there_is_one_task_at_a_time():
    worker, go_on = Worker(), threading.Event()
    first = worker.submit("same", lambda _: go_on.wait(SECONDS), key="k")
    assert worker.submit("same", lambda _: None, key="k") is first
    go_on.set()
    over(first)
    assert worker.submit("same", lambda _: None, key="k") is not first


def test_old_tasks_are_forgotten():
    worker = Worker()
    tasks = [over(worker.submit("one of many", lambda _: None, key=str(i))) for i in range(KEPT + 20)]
    over(worker.submit("last", lambda _: None))
    assert len(worker.tasks()) <= KEPT + 2
    assert worker.task(tasks[-1].id) is tasks[-1]
    with pytest.raises(KeyError):
        worker.task(tasks[0].id)


def test_pages_ask_for_tasks_and_stop_them(finished):
    asking, go_on = client(finished), threading.Event()
    worker = asking.app.state.service.worker

    def work(task: Task) -> None:
        assert go_on.wait(SECONDS)
        task.progress(0.9)

    task = worker.submit("work", work)
    assert asking.get(f"/api/tasks/{task.id}").json()["what"] == "work"
    assert asking.post(f"/api/tasks/{task.id}/stop").status_code == 200
    go_on.set()
    assert over(task).state == "stopped"
    assert asking.get(f"/api/tasks/{task.id}").json()["state"] == "stopped"


def test_a_studio_remembers_a_bounded_number_of_values(finished):
    from oodream.studio.studio import REMEMBERED

    studio = client(finished).app.state.service
    for i in range(REMEMBERED + 10):
        assert studio.cached("calm", i, lambda i=i: 2 * i) == 2 * i
    assert studio.cached("calm", REMEMBERED, lambda: "another") == 2 * REMEMBERED
    assert studio.remembered("calm", 0) is None
    assert studio.remembered("calm", REMEMBERED) == 2 * REMEMBERED
