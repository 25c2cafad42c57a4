"""A collection's labels -> a classifier that is stored and answers; for requests and for jobs."""

from models.classifiers.table import Order
from service.collecting import Collecting, owner_of, signature_of
from service.collections.classifiers import Kept, NewVersion, Version, about
from service.collections.fitting import Fit
from service.collections.gathering import gather, plan
from service.collections.records import Collection
from service.collections.teaching import Taught, table_of
from service.context import Context
from service.formats.teaching_requests import TeachRequest
from service.problems import Problem
from service.teaching import Teaching, opened
from service.threads import in_thread
from service.traffic.budget import Share
from service.traffic.quotas import Caller


async def learn(
    share: Share,
    collected: Collecting,
    teaching: Teaching,
    collection: Collection,
    asked: TeachRequest,
) -> tuple[Taught, Fit]:
    """Read a collection's labels and windows, and fit a classifier to them in a process of its own.

    Raises:
        ServiceError: there is nothing to learn, or learning fails.
    """
    lesson, store = asked.lesson(), collected.store
    planned = await in_thread(plan, store, collection, lesson)
    await share.take(planned.n_bytes(collection))
    windows = await in_thread(gather, store, collection, planned, lesson)
    taught = await in_thread(
        table_of, windows, planned.labels, lesson, collection.name, planned.names
    )
    fit = await teaching.fits.run(taught.table, _order(collection, asked, taught))
    await in_thread(opened, asked.name, fit.file)  # it computes here what it says
    return taught, fit


def keep(
    collected: Collecting,
    caller: Caller,
    asked: TeachRequest,
    taught: Taught,
    fit: Fit,
    job: str | None = None,
) -> tuple[Kept, Version]:
    """The classifier, and its new version, on the disk; of a job there is one alone.

    Another version may answer by then: that of somebody who has taught the same name meanwhile.
    """
    owner, classifiers = owner_of(caller, asked.name), collected.store.classifiers
    told = about(fit, asked.model_dump(mode="json"), taught.warnings)
    new = NewVersion(asked.collection, told, fit.file, job)
    number = classifiers.add(owner, asked.name, new, signature_of(caller))
    kept = classifiers.get(owner, asked.name)
    return kept, kept.version(number)


def check_free(shared: Context, name: str) -> None:
    """Refuse a name that the operator's classifiers have, served or refused.

    Raises:
        Problem: it is taken.
    """
    catalogue = shared.catalogue
    refused = {item.file.removesuffix(".onnx") for item in catalogue.refused}
    if name in catalogue.classifiers or name in refused:
        raise Problem(
            "classifier-taken",
            f"{name!r} is a classifier that this service comes with; what is taught takes another "
            "name.",
            param="name",
        )


def _order(collection: Collection, asked: TeachRequest, taught: Taught) -> Order:
    return Order(
        name=asked.name,
        task=collection.name,
        encoder=collection.terms.model,
        space_id=collection.terms.space_id,
        protocol=taught.protocol,
        licence=asked.licence,
        description=asked.description,
        seed=asked.seed,
    )
