"""What both stores promise of jobs and uploads."""

import json
import threading

import pytest
from sqlalchemy import Connection

from service.collections import jobs, uploads
from service.collections.job_records import (
    FileDone,
    Job,
    JobDiffers,
    JobGone,
    JobNotDone,
    JobNotFound,
    JobsFull,
    NewJob,
    TooManyJobs,
    UploadConflict,
    UploadNotFound,
    UploadsFull,
)
from service.collections.store import Store
from tests.service.collections.conftest import Reopen
from tests.service.collections.test_store import rows_left

LAPSE_S, KEPT_S = 30.0, 3600.0
MOST = 1 << 20


class Clock:
    """The store's time, which a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Puts:
    """What was put into the queue."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def __call__(self, connection: Connection, step: str, job: str) -> None:
        self.steps.append((step, job))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(reopen: Reopen, clock: Clock) -> Store:
    return reopen(now=clock)


@pytest.fixture
def puts() -> Puts:
    return Puts()


def uploaded(store: Store, content: bytes = b"abc", owner: str = "ann") -> str:
    upload = store.uploads.create(owner, len(content), "a.wav", most_bytes=MOST, kept_s=60.0)
    store.uploads.append(owner, upload.id, 0, content)
    return upload.id


def submitted(store: Store, puts: Puts, n_files: int = 1, **members: object) -> Job:
    files = tuple(uploaded(store) for _ in range(n_files))
    new = NewJob("ann", "", "embed", {"window_s": 1.0}, files, **members)  # type: ignore[arg-type]
    return store.jobs.submit(new, 100, puts)[0]


def begun(store: Store, puts: Puts, name: str) -> Job:
    job = store.attempts.begin(name, LAPSE_S, KEPT_S, puts)
    assert isinstance(job, Job), job
    return job


def lines(store: Store, name: str) -> bytes:
    return b"".join(store.jobs.result(store.jobs.get("ann", name)))


def test_a_job_is_taken_by_one_worker_at_a_time(timed: Store, puts: Puts, clock: Clock) -> None:
    name = submitted(timed, puts).id
    assert puts.steps == [("run", name)]
    first = begun(timed, puts, name)
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) == LAPSE_S
    clock.now += 20
    timed.attempts.beat(first, 0, 0.5)
    clock.now += 20
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) == 10.0
    clock.now += 10
    second = begun(timed, puts, name)
    assert (first.attempt, second.attempt) == (1, 2)


def test_a_worker_that_died_before_the_clock_was_set_back_is_waited_for_as_long_as_ever(
    timed: Store, puts: Puts, clock: Clock
) -> None:
    name = submitted(timed, puts).id
    first = begun(timed, puts, name)
    clock.now -= 3 * 3600
    assert timed.attempts.silent(LAPSE_S) == [name]
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) == LAPSE_S
    clock.now += 20
    timed.attempts.beat(first)  # it is alive, after all
    clock.now += 20
    assert timed.attempts.silent(LAPSE_S) == []
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) == 10.0
    clock.now += 10
    assert begun(timed, puts, name).attempt == 2


def test_a_worker_that_was_thought_dead_writes_nothing_more(
    timed: Store, puts: Puts, clock: Clock
) -> None:
    name = submitted(timed, puts, 2).id
    first = begun(timed, puts, name)
    timed.attempts.file_done(first, 0, 0, b"zero\n", FileDone(1.0, 3))
    timed.attempts.write(first, 1, 0, b"half of one\n")
    clock.now += LAPSE_S
    second = begun(timed, puts, name)
    assert second.n_done == 1
    for write in (
        lambda: timed.attempts.beat(first, 0, 1.0),
        lambda: timed.attempts.write(first, 1, 1, b"late\n"),
        lambda: timed.attempts.file_done(first, 1, 1, b"late\n", FileDone()),
        lambda: timed.attempts.end(first, "done", None, KEPT_S, puts),
    ):
        with pytest.raises(JobGone, match="Another worker"):
            write()
    timed.attempts.file_done(second, 1, 0, b"one\n", FileDone(2.0, 4, has_failed=True))
    timed.attempts.end(second, "done", None, KEPT_S, puts)
    job = timed.jobs.get("ann", name)
    assert (job.state, job.n_done, job.n_failed, job.n_windows) == ("done", 2, 1, 7)
    assert lines(timed, name) == b"zero\none\n"
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) is None


def test_a_file_that_kills_its_workers_ends_its_job(timed: Store, puts: Puts, clock: Clock) -> None:
    name = submitted(timed, puts, 2).id
    timed.attempts.file_done(begun(timed, puts, name), 0, 0, b"zero\n", FileDone())
    for _ in range(5):
        clock.now += LAPSE_S
        begun(timed, puts, name)
    clock.now += LAPSE_S
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) is None
    job = timed.jobs.get("ann", name)
    assert (job.state, job.n_done) == ("failed", 1)
    assert job.error == {
        "code": "internal",
        "message": "5 workers died one after the other of file 1.",
    }
    assert lines(timed, name) == b"zero\n"


def test_work_without_files_that_kills_its_workers_ends_its_job(
    timed: Store, puts: Puts, clock: Clock
) -> None:
    name = submitted(timed, puts, 0).id
    for _ in range(5):
        begun(timed, puts, name)
        clock.now += LAPSE_S
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) is None
    error = timed.jobs.get("ann", name).error
    assert error is not None
    assert error["message"] == "5 workers died one after the other of this job."


def test_a_worker_that_leaves_costs_no_try(timed: Store, puts: Puts) -> None:
    name = submitted(timed, puts).id
    for _ in range(10):
        timed.attempts.release(begun(timed, puts, name))
    assert timed.jobs.get("ann", name).state == "queued"
    assert begun(timed, puts, name).attempt == 11


def test_a_file_has_no_more_tries_because_a_worker_left(
    timed: Store, puts: Puts, clock: Clock
) -> None:
    name = submitted(timed, puts, 2).id
    first = begun(timed, puts, name)
    timed.attempts.file_done(first, 0, 0, b"zero\n", FileDone())
    timed.attempts.release(first)
    for _ in range(5):
        begun(timed, puts, name)
        clock.now += LAPSE_S
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) is None
    assert timed.jobs.get("ann", name).state == "failed"


def test_the_end_of_a_job_is_not_told_before_it_has_ended(timed: Store, puts: Puts) -> None:
    """A queue beside the database hands out a step while the transaction is still open."""
    webhook = {"url": "https://a.example", "secret": "whsec_x"}
    job = begun(timed, puts, submitted(timed, puts, webhook=webhook).id)
    assert timed.jobs.to_tell(job.id) is None
    told: list[Job | None] = []
    asking = threading.Thread(target=lambda: told.append(timed.jobs.to_tell(job.id)))

    def put(connection: Connection, step: str, name: str) -> None:
        asking.start()
        asking.join(0.5)
        assert told == []

    timed.attempts.end(job, "done", None, KEPT_S, put)
    asking.join()
    assert told == [timed.jobs.get("ann", job.id)]
    assert timed.jobs.untold() == [job.id]


def test_each_second_is_charged_once(timed: Store, puts: Puts, clock: Clock) -> None:
    name = submitted(timed, puts, 2).id
    job = begun(timed, puts, name)
    timed.attempts.beat(job, 0, 4.0)
    assert [(c.owner, c.audio_s) for c in timed.jobs.charges()] == [("ann", 4.0)]
    assert timed.jobs.charges() == []
    clock.now += LAPSE_S
    again = begun(timed, puts, name)
    timed.attempts.beat(again, 0, 3.0)  # decoded once more, for a worker that has died
    assert timed.jobs.charges() == []
    timed.attempts.file_done(again, 0, 0, b"", FileDone(6.0))
    timed.attempts.beat(again, 0, 9.0)  # late, of the file before
    timed.attempts.beat(again, 1, 1.5)
    assert sum(c.audio_s for c in timed.jobs.charges()) == 3.5
    timed.jobs.cancel("ann", name, LAPSE_S, KEPT_S, puts)
    with pytest.raises(JobGone, match="cancelled"):
        timed.attempts.beat(again, 1, 2.0)
    timed.attempts.end(again, "cancelled", None, KEPT_S, puts)
    assert timed.jobs.charges() == []
    assert timed.jobs.get("ann", name).audio_s == 7.5


def test_a_job_that_waits_is_cancelled_at_once(timed: Store, puts: Puts) -> None:
    webhook = {"url": "https://a.example", "secret": "whsec_x"}
    name = submitted(timed, puts, webhook=webhook).id
    with pytest.raises(JobNotDone, match="queued: 0 of 1"):
        timed.jobs.result(timed.jobs.get("ann", name))
    job = timed.jobs.cancel("ann", name, LAPSE_S, KEPT_S, puts)
    assert (job.state, job.webhook_state) == ("cancelled", "pending")
    assert puts.steps == [("run", name), ("tell", name)]
    assert timed.attempts.begin(name, LAPSE_S, KEPT_S, puts) is None
    assert (timed.jobs.to_tell(name), lines(timed, name)) == (job, b"")
    timed.jobs.told(job, "delivered")
    told = timed.jobs.get("ann", name)
    assert (told.webhook, told.webhook_state, told.webhook_tries) == (None, "delivered", 1)
    assert timed.jobs.to_tell(name) is None
    assert timed.jobs.cancel("ann", name, LAPSE_S, KEPT_S, puts).state == "cancelled"


@pytest.mark.parametrize("way", ["delete", "expire"])
def test_deleting_a_job_leaves_nothing(timed: Store, puts: Puts, clock: Clock, way: str) -> None:
    name = submitted(timed, puts, 2).id
    job = begun(timed, puts, name)
    timed.attempts.file_done(job, 0, 0, b"zero\n", FileDone())
    with pytest.raises(JobNotFound):
        timed.jobs.delete("bob", name)
    if way == "delete":
        timed.jobs.delete("ann", name)
        with pytest.raises(JobGone, match="deleted"):
            timed.attempts.write(job, 1, 0, b"one\n")
    else:
        timed.attempts.end(job, "failed", {"code": "x"}, KEPT_S, puts)
        assert timed.jobs.expire() == 0
        clock.now += KEPT_S + 1
        assert timed.jobs.expire() == 1
    with pytest.raises(JobNotFound):
        timed.jobs.get("ann", name)
    assert set(rows_left(timed).values()) == {0}


def test_jobs_are_their_owners_and_the_newest_come_first(timed: Store, puts: Puts) -> None:
    made = [submitted(timed, puts).id for _ in range(3)]
    page = timed.jobs.page("ann", None, 2, None)
    assert [job.id for job in page] == [made[2], made[1]]
    assert [job.id for job in timed.jobs.page("ann", page[-1].key, 2, None)] == [made[0]]
    begun(timed, puts, made[1])
    assert [job.id for job in timed.jobs.page("ann", None, 9, "running")] == [made[1]]
    assert timed.jobs.page("bob", None, 9, None) == []
    with pytest.raises(JobNotFound):
        timed.jobs.cancel("bob", made[0], LAPSE_S, KEPT_S, puts)
    assert timed.jobs.waiting() == made
    with pytest.raises(TooManyJobs, match="3 jobs wait or run; at most 3 may"):
        timed.jobs.submit(NewJob("ann", "", "embed", {}), 3, puts)


def test_a_job_has_whole_uploads_of_its_owner_alone(timed: Store, puts: Puts) -> None:
    half = timed.uploads.create("ann", 5, None, most_bytes=MOST, kept_s=60.0)
    timed.uploads.append("ann", half.id, 0, b"12")
    with pytest.raises(UploadConflict, match="2 bytes have come, of 5"):
        timed.jobs.submit(NewJob("ann", "", "embed", {}, (uploaded(timed), half.id)), 9, puts)
    with pytest.raises(UploadNotFound):
        timed.jobs.submit(NewJob("ann", "", "embed", {}, (uploaded(timed, owner="bob"),)), 9, puts)
    mine = uploaded(timed)
    job, _ = timed.jobs.submit(NewJob("ann", "", "embed", {}, (mine,)), 9, puts)
    with pytest.raises(UploadConflict, match="has the upload"):
        timed.jobs.submit(NewJob("ann", "", "embed", {}, (mine,)), 9, puts)
    with pytest.raises(UploadConflict, match="cancel the job"):
        timed.uploads.delete("ann", mine)
    assert timed.jobs.waiting() == [job.id]


def test_jobs_and_their_results_count_among_the_bytes_of_their_owner(
    timed: Store, puts: Puts
) -> None:
    job = begun(timed, puts, submitted(timed, puts, n_files=2).id)
    asked = len(json.dumps({"window_s": 1.0}))
    files, result = 2 * len(b"abc"), b"x" * 500
    most = asked + files + 1000
    timed.attempts.write(job, 0, 0, result, most)
    timed.attempts.write(job, 0, 1, result, most)
    with pytest.raises(JobsFull, match=f"it would be {most + 1}, and at most {most}"):
        timed.attempts.write(job, 0, 2, b"x", most)
    with pytest.raises(UploadsFull, match=f"take {most} bytes"):
        timed.uploads.create("ann", 1, None, most_bytes=most, kept_s=60.0)
    new = NewJob("ann", "", "embed", {"window_s": 1.0})
    with pytest.raises(JobsFull):
        timed.jobs.submit(new, 100, puts, most)
    timed.uploads.create("bob", 1, None, most_bytes=most, kept_s=60.0)
    timed.attempts.file_done(job, 0, 2, b"xyz", FileDone(), most)  # in the room of its file
    timed.attempts.write(job, 1, 0, b"", most)
    with pytest.raises(JobsFull):
        timed.attempts.file_done(job, 1, 1, b"abcd", FileDone(), most)
    timed.attempts.end(job, "failed", {"code": "jobs-full", "message": ""}, KEPT_S, puts)
    timed.jobs.submit(new, 100, puts, most + asked)
    timed.jobs.delete("ann", job.id)
    timed.uploads.create("ann", 1, None, most_bytes=2 * asked, kept_s=60.0)


def test_what_a_dead_worker_has_written_counts_no_more(
    timed: Store, puts: Puts, clock: Clock
) -> None:
    name = submitted(timed, puts).id
    job = begun(timed, puts, name)
    most = 3 + len(json.dumps({"window_s": 1.0})) + 100
    for _ in range(3):
        timed.attempts.write(job, 0, 0, b"x" * 100, most)
        clock.now += LAPSE_S + 1
        job = begun(timed, puts, name)


def test_a_page_of_jobs_with_long_parameters_is_short(
    timed: Store, puts: Puts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_PAGE_BYTES", 250)
    for length in (10, 300, 100, 100, 100):
        timed.jobs.submit(NewJob("ann", "", "embed", {"a": "x" * length}), 9, puts)
    sizes, before = [], None
    while sum(sizes) < 5:
        sizes.append(timed.jobs.fitting("ann", before, 3, None))
        before = timed.jobs.page("ann", before, sizes[-1], None)[-1].key
    assert sizes == [2, 1, 1, 3]
    assert timed.jobs.fitting("bob", None, 3, None) == 3


def test_empty_uploads_are_counted(
    timed: Store, puts: Puts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_WAITING", 2)
    for _ in range(2):
        timed.uploads.create("ann", 0, None, most_bytes=MOST, kept_s=60.0)
    with pytest.raises(UploadsFull, match="2 uploads wait for a job; at most 2 may"):
        timed.uploads.create("ann", 0, None, most_bytes=MOST, kept_s=60.0)
    timed.uploads.create("bob", 0, None, most_bytes=MOST, kept_s=60.0)


def test_bytes_follow_those_that_have_come(timed: Store, clock: Clock) -> None:
    upload = timed.uploads.create("ann", 6, "a.wav", most_bytes=10, kept_s=60.0)
    assert timed.uploads.append("ann", upload.id, 0, b"abc").n_received == 3
    for first, data, why in ((0, b"abc", "said to begin at 0"), (3, b"defg", "it would be 7")):
        with pytest.raises(UploadConflict, match=why):
            timed.uploads.append("ann", upload.id, first, data)
    whole = timed.uploads.append("ann", upload.id, 3, b"def")
    assert b"".join(timed.uploads.content(whole)) == b"abcdef"
    with pytest.raises(UploadsFull, match="take 6 bytes; with this one it would be 11"):
        timed.uploads.create("ann", 5, None, most_bytes=10, kept_s=60.0)
    timed.uploads.create("bob", 5, None, most_bytes=10, kept_s=600.0)
    clock.now += 61
    assert timed.uploads.expire() == 1
    with pytest.raises(UploadNotFound):
        timed.uploads.get("ann", upload.id)
    assert rows_left(timed)["upload_parts"] == 0


def test_a_request_that_is_sent_again_is_the_same_job(timed: Store, puts: Puts) -> None:
    first, is_new = timed.jobs.submit(NewJob("ann", "", "teach", {"a": 1}, request="k"), 9, puts)
    again, is_new_again = timed.jobs.submit(
        NewJob("ann", "", "teach", {"a": 1}, request="k"), 9, puts
    )
    assert (first, is_new, is_new_again) == (again, True, False)
    assert puts.steps == [("run", first.id)]
    with pytest.raises(JobDiffers, match="is another one"):
        timed.jobs.submit(NewJob("ann", "", "teach", {"a": 2}, request="k"), 9, puts)
    other, is_new = timed.jobs.submit(NewJob("bob", "", "teach", {"a": 2}, request="k"), 9, puts)
    assert is_new
    assert other.id != first.id


def test_a_job_whose_worker_is_dead_is_cancelled_at_once(
    timed: Store, puts: Puts, clock: Clock
) -> None:
    name = submitted(timed, puts).id
    begun(timed, puts, name)
    assert timed.jobs.cancel("ann", name, LAPSE_S, KEPT_S, puts).state == "running"
    clock.now += LAPSE_S
    assert timed.jobs.cancel("ann", name, LAPSE_S, KEPT_S, puts).state == "cancelled"


def test_what_is_done_when_it_is_cancelled_is_done(timed: Store, puts: Puts) -> None:
    job = begun(timed, puts, submitted(timed, puts).id)
    timed.attempts.file_done(job, 0, 0, b"zero\n", FileDone())
    with pytest.raises(JobGone, match="Nobody has cancelled"):
        timed.attempts.end(job, "cancelled", None, KEPT_S, puts)
    timed.jobs.cancel("ann", job.id, LAPSE_S, KEPT_S, puts)
    timed.attempts.end(job, "done", None, KEPT_S, puts)
    assert timed.jobs.get("ann", job.id).state == "done"


def test_silent_workers_jobs_are_known(timed: Store, puts: Puts, clock: Clock) -> None:
    first, second = (begun(timed, puts, submitted(timed, puts).id) for _ in range(2))
    clock.now += 3 * LAPSE_S + 1
    timed.attempts.beat(second)
    assert timed.attempts.silent(3 * LAPSE_S) == [first.id]
