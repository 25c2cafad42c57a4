"""What each kind of job does with a file: the same as the routes do, by the same parts."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from service.collecting import Collecting, check_member
from service.collections.filters import EVERYTHING, Filter
from service.collections.job_records import Job
from service.collections.records import Collection
from service.context import Context, model_of
from service.formats.job_requests import WITHOUT_FILES, JobRequest, MapJob
from service.formats.json_body import validated
from service.formats.teaching_answers import VersionAnswer
from service.formats.teaching_requests import TeachRequest
from service.jobs.decoding import blocks_of
from service.learning import check_free, keep, learn
from service.mapping import check_size, mapped
from service.problems import Problem
from service.streams.keeping import Keeping, plan_of
from service.streams.plans import plan_predictions, plan_vectors
from service.streams.streaming import Members, Plan, answers
from service.threads import in_thread
from service.traffic.budget import Share
from service.traffic.quotas import Caller
from service.uploads.spool import Spooled


class Doing:
    """A job's parameters, understood and checked; made when it is submitted, and by its worker."""

    def __init__(self, shared: Context, caller: Caller, asked: JobRequest) -> None:
        self._shared, self._caller, self.asked = shared, caller, asked

    @classmethod
    def again(cls, shared: Context, job: Job) -> "Doing":
        """Read the parameters of a job that was stored."""
        caller = Caller(job.owner or None, groups=frozenset(job.groups))
        return cls(shared, caller, validated(JobRequest, {job.kind: dict(job.asked)}))

    async def check(self, n_files: int) -> dict[str, Any]:
        """Refuse what could not be done.

        Returns:
            The parameters as they are kept, with the model that they are understood with: another
            one that becomes the default meanwhile changes nothing.

        Raises:
            Problem: what is asked for does not fit, or is not served here.
            StoreError: the collection is not there, or has more items than a map holds.
        """
        if (self.asked.kind in WITHOUT_FILES) != (n_files == 0):
            what = "takes no files" if n_files else "needs files: send some, or name uploads"
            raise Problem("missing-file", f"A job of the kind {self.asked.kind} {what}.")
        if self.asked.teach is not None:
            check_member(self._caller, self.asked.teach.name)
            check_free(self._shared, self.asked.teach.name)
            _, collection = await self._collection(self.asked.teach.collection)
            model_of(self._shared, collection)
            return self.asked.asked()
        if self.asked.map is not None:
            found = await self._collection(self.asked.map.collection)
            await check_size(*found, _filter_of(self.asked.map))
            return self.asked.asked()
        if self.asked.index is not None:
            self.asked.index.about(n_files)
        plan = await self.plan()
        named = {} if self.asked.index is not None else {"model": plan.model.name}
        return self.asked.asked() | named

    async def plan(self) -> Plan:
        """What is computed of each file.

        Raises:
            Problem: it does not fit, or is not served here.
        """
        if self.asked.embed is not None:
            return await plan_vectors(self._shared, self.asked.embed.parameters())
        if self.asked.classify is not None:
            asked = self.asked.classify.parameters()
            return await plan_predictions(self._shared, self._caller, asked)
        assert self.asked.index is not None
        _, collection = await self._collection(self.asked.index.collection)
        return plan_of(self._shared, collection)

    async def lines(
        self, job: Job, place: int, upload: Spooled, share: Share, spend: Callable[[float], None]
    ) -> AsyncGenerator[list[Members], None]:
        """The lines of the result about one file, as they are computed."""
        plan = await self.plan()
        opening = plan.opening | {"object": "file", "index": place, "file": upload.name}
        yield [{name: value for name, value in opening.items() if value is not None}]
        warnings: list[str] = []
        blocks = blocks_of(self._shared, upload, plan.selection, share, spend, warnings.append)
        async with (
            aclosing(blocks) as given,
            aclosing(
                answers(self._shared.engine.batcher, plan, given, spend, warnings)
            ) as computed,
        ):
            if self.asked.index is None:
                async for members in computed:
                    yield members
                return
            collected, collection = await self._collection(self.asked.index.collection)
            about = self.asked.index.about(job.n_files)[place]
            keeping = Keeping(share, self._shared, collected, collection, about, upload)
            async with aclosing(keeping.lines(computed)) as kept:
                async for members in kept:
                    yield [one for one in members if one["object"] != "progress"]

    async def whole(self, job: Job, share: Share) -> Members:
        """Do a job without files; returns the line of its result.

        Raises:
            ServiceError: it cannot be done.
        """
        if self.asked.map is not None:
            return await self._map(self.asked.map, share)
        assert self.asked.teach is not None
        return await self._teach(self.asked.teach, job, share)

    async def _map(self, asked: MapJob, share: Share) -> Members:
        """Place the collection's items."""
        collected, collection = await self._collection(asked.collection)
        only = _filter_of(asked)
        with collected.comparisons.slot():
            found = await mapped(
                share, collected, collection, only, clusters=asked.clusters, seed=asked.seed
            )
        told: dict[str, Any] = found.model_dump(mode="json", exclude_none=True)
        return told

    async def _teach(self, asked: TeachRequest, job: Job, share: Share) -> Members:
        """Make the classifier."""
        teaching = self._shared.teaching
        assert teaching is not None  # where there are collections
        collected, collection = await self._collection(asked.collection)
        with teaching.places.slot():
            taught, fit = await learn(share, collected, teaching, collection, asked)
        work = partial(keep, collected, self._caller, asked, taught, fit, job.id)
        kept, version = await in_thread(work)
        told: dict[str, Any] = VersionAnswer.told(kept, version).model_dump(mode="json")
        return told

    async def _collection(self, name: str) -> tuple[Collecting, Collection]:
        collected = self._shared.collecting
        assert collected is not None  # where there are jobs there are collections
        return collected, await collected.find(self._caller, name)


def _filter_of(asked: MapJob) -> Filter:
    return EVERYTHING if asked.filter is None else asked.filter.filter()
