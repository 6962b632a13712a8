"""The job table against a plain model of it: whatever happens to workers, every count is what a look at all gives."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from decode_server.service.admission import Job
from decode_server.service.range_allocator import Buffer
from decode_server.service.workers.job_table import JobTable, Running
from decode_server.service.workers.read_depth import most_spare, most_stuck_readers, most_tasks, readers

THREADS = 2


def job(id: int, *, client: bytes = b"a") -> Job:
    return Job(
        id=id,
        client=client,
        attempt=id,
        what=f"v{id} [0, 1) s",
        header=b"",
        clip_bytes=10,
        received_s=0.0,
        due_s=100.0,
        frames=id,
    )


class TableModel(RuleBasedStateMachine):
    """Workers come up, take tasks, end them, get stuck, die and are reaped."""

    def __init__(self) -> None:
        super().__init__()
        self.table: JobTable[int] = JobTable(threads=THREADS)
        self.workers = 0
        self.ready: set[int] = set()
        self.dying: set[int] = set()
        self.lost: set[int] = set()
        self.tasks: dict[int, dict[int, set[int]]] = {}  # by worker, by task: its jobs
        self.stuck: set[int] = set()
        self.ahead: set[int] = set()  # of these, those that are read ahead
        self.unanswered: set[int] = set()
        self.released: set[int] = set()
        self.ids = 0
        self.spare = 1

    def hung(self, worker: int) -> tuple[int, int]:
        """Threads that decode, and that read ahead, that wait in reads."""
        stuck = self.stuck & self.tasks[worker].keys()
        return len(stuck - self.ahead), len(stuck & self.ahead)

    def usable(self, worker: int) -> bool:
        decoding, reading = self.hung(worker)
        return worker in self.ready and decoding < THREADS and reading < most_stuck_readers(THREADS)

    def room(self, worker: int) -> int:
        decoding, reading = self.hung(worker)
        room = THREADS - decoding + self.spare - (len(self.tasks[worker]) - decoding - reading)
        return max(room, 0) if self.usable(worker) else 0

    @rule(spare=st.integers(1, most_spare(THREADS)))
    def allow(self, spare: int) -> None:
        self.spare = spare
        self.table.allow(spare)

    @rule()
    def come_up(self) -> None:
        self.workers += 1
        self.ready.add(self.workers)
        self.tasks[self.workers] = {}
        self.table.came_up(self.workers)

    @precondition(lambda self: any(self.room(worker) for worker in self.ready))
    @rule(together=st.integers(1, 3))
    def start(self, together: int) -> None:
        ids = range(self.ids, self.ids + together)
        self.ids += together
        worker = next(self.table.roomiest())
        assert self.room(worker) == max(map(self.room, self.ready)), "another had more room"
        self.table.start(worker, [(job(id), Buffer(id * 4096, 4096), id) for id in ids])
        self.tasks[worker][ids[0]] = set(ids)
        self.unanswered.update(ids)

    @precondition(lambda self: any(self.tasks[worker] for worker in self.ready))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker in sorted(self.ready) if self.tasks[worker]]))
        first = data.draw(st.sampled_from(sorted(self.tasks[worker])))
        id = data.draw(st.sampled_from(sorted(self.tasks[worker][first])))
        ended = self.table.done(worker, id)
        assert ended is not None
        assert (ended[0].job.id, bool(ended[1])) == (id, id not in self.unanswered)
        assert self.table.done(worker, id) is None, "it ended twice"
        self.unanswered.discard(id)
        self.tasks[worker][first].remove(id)
        if not self.tasks[worker][first]:
            del self.tasks[worker][first]
            self.stuck.discard(first)

    @precondition(lambda self: any(self.tasks[worker] for worker in self.ready))
    @rule(data=st.data(), ahead=st.booleans())
    def hang(self, data: st.DataObject, ahead: bool) -> None:
        worker = data.draw(st.sampled_from([worker for worker in sorted(self.ready) if self.tasks[worker]]))
        free = sorted(self.tasks[worker].keys() - self.stuck)
        decoding, reading = self.hung(worker)
        if not free or (reading >= readers(THREADS) if ahead else decoding >= THREADS):
            return  # no thread is left that could begin a read
        first = data.draw(st.sampled_from(free))
        hung = self.table.stuck(worker, first, 7.0, ahead=ahead)
        assert {running.job.id for running in hung} == self.tasks[worker][first]
        assert self.table.stuck(worker, first, 8.0, ahead=not ahead) == []
        self.stuck.add(first)
        self.ahead |= {first} if ahead else set()
        assert (self.table.all_stuck_s(worker) is not None) == (not self.usable(worker))
        self.answer(hung)

    @rule(data=st.data())
    def answer_one(self, data: st.DataObject) -> None:
        waiting = [running for _, running in self.table.everything() if not running.answered]
        if waiting:
            self.answer([data.draw(st.sampled_from(waiting))])

    def answer(self, some: list[Running]) -> None:
        for running in some:
            if not running.answered:
                self.unanswered.remove(self.table.answered(running, "late").id)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.integers(0, self.ids - 1))
        awaited = self.table.awaited(b"a", id)
        assert (awaited is not None) == (id in self.unanswered)
        assert len(self.table.awaited_by(b"a")) == len(self.unanswered)
        if awaited is not None:
            self.answer([awaited])

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.ready)))
        self.ready.remove(worker)
        self.dying.add(worker)
        self.table.stop(worker)

    @precondition(lambda self: self.dying)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.dying)))
        self.dying.remove(worker)
        self.lost.add(worker)
        gone = self.table.lost(worker)
        assert {running.job.id for running in gone} == self.unanswered & self.jobs(worker)
        self.answer(gone)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def reap(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.lost)))
        self.lost.remove(worker)
        assert {running.job.id for running in self.table.release(worker)} == self.jobs(worker)
        del self.tasks[worker]

    def jobs(self, worker: int) -> set[int]:
        return set().union(*self.tasks[worker].values())

    @invariant()
    def counts_agree(self) -> None:
        there = self.ready | self.dying
        assert all(len(tasks) <= most_tasks(THREADS) for tasks in self.tasks.values())
        assert self.table.unanswered == len(self.unanswered)
        roomiest = list(self.table.roomiest())
        assert sorted(roomiest) == [worker for worker in sorted(self.ready) if self.room(worker)]
        assert [self.room(worker) for worker in roomiest] == sorted(map(self.room, roomiest), reverse=True)
        assert self.table.ready == sum(map(self.usable, self.ready))
        assert self.table.room == sum(map(self.room, self.ready))
        assert self.table.busy == sum(bool(self.tasks[worker]) for worker in there)
        assert self.table.stuck_reads == sum(len(self.stuck & self.tasks[worker].keys()) for worker in there)


TestTable = TableModel.TestCase
TestTable.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
