"""Classifiers that were taught, as they are kept: each has versions, one of which answers."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.collections.database import Database
from service.collections.fitting import Fit
from service.collections.records import QuotaExceeded, StoreError
from service.collections.schema import classifier_versions, classifiers

MAX_CLASSIFIERS = 1000  # of one owner
MAX_VERSIONS = 100  # of one classifier

log = structlog.get_logger()


class ClassifierNotFound(StoreError):
    """There is no such classifier, or no such version of it, or it is somebody else's."""

    kind = "classifier-not-found"


class VersionInUse(StoreError):
    """The version answers, and cannot be deleted by itself."""

    kind = "version-in-use"


class VersionDamaged(StoreError):
    """The file of a version is not the one that was kept; the disk or somebody has changed it."""

    kind = "model-unavailable"


@dataclass(frozen=True)
class NewVersion:
    """A classifier file, the collection that taught it, and what is to be told of it.

    `job` is the job that made it, which makes one version however often it is begun.
    """

    collection: str
    about: dict[str, Any]
    file: bytes
    job: str | None = None


@dataclass(frozen=True)
class Version:
    """A version without its file; `by` says who made it."""

    number: int
    collection: str
    about: dict[str, Any]
    by: str
    created_at: float
    n_bytes: int


@dataclass(frozen=True)
class Kept:
    """A classifier by name, and its versions, the newest first."""

    name: str
    active: int
    created_at: float
    versions: tuple[Version, ...]

    def version(self, number: int | None = None) -> Version:
        """The version of that number, else the one that answers.

        Raises:
            ClassifierNotFound: there is none.
        """
        wanted = self.active if number is None else number
        for version in self.versions:
            if version.number == wanted:
                return version
        raise _no_version(self.name, wanted)


@dataclass(frozen=True)
class Active:
    """Which version answers for a name; `key` is the classifier's number in the store."""

    key: int
    version: int


def about(fit: Fit, asked: Mapping[str, Any], warnings: Sequence[str]) -> dict[str, Any]:
    """What is kept beside a file: its card, what was asked for, and what is to be told of it."""
    return {
        "card": fit.card.model_dump(mode="json"),
        "asked": dict(asked),
        "verdict": list(fit.sentences),
        "warnings": list(warnings),
        "seconds": round(fit.seconds, 3),
    }


class Classifiers:
    """Taught classifiers by owner and name. What is not the owner's is as good as not there."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def add(self, owner: str, name: str, new: NewVersion, by: str) -> int:
        """Keep a file as the next version of a classifier, which answers from now on; its number.

        Raises:
            QuotaExceeded: there are as many as are allowed.
        """
        with suppress(IntegrityError):  # another has made the classifier at the same moment
            return self._add(owner, name, new, by)
        return self._add(owner, name, new, by)

    def all(self, owner: str) -> list[Kept]:
        """The owner's classifiers by name."""
        query = select(classifiers).where(classifiers.c.owner == owner)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(classifiers.c.name)).all()
            return [_kept(connection, row) for row in rows]

    def get(self, owner: str, name: str) -> Kept:
        """The classifier of that name.

        Raises:
            ClassifierNotFound: the owner has none.
        """
        with self._database.read() as connection:
            return _kept(connection, _named(connection, owner, name))

    def active(self, owner: str, names: Sequence[str]) -> dict[str, Active]:
        """Which versions answer, of those names that the owner has."""
        query = select(classifiers).where(
            classifiers.c.owner == owner, classifiers.c.name.in_(names)
        )
        with self._database.read() as connection:
            return {row.name: Active(row.id, row.active) for row in connection.execute(query)}

    def file(self, name: str, active: Active) -> bytes | None:
        """The file of the version that answers; None where it has been deleted meanwhile.

        Raises:
            VersionDamaged: it is not what was kept.
        """
        with self._database.read() as connection:
            return _file(connection, name, active.key, active.version)

    def download(self, owner: str, name: str, number: int | None) -> tuple[int, bytes]:
        """The number and the file of a version, else of the one that answers.

        Raises:
            ClassifierNotFound: there is none.
            VersionDamaged: it is not what was kept.
        """
        with self._database.read() as connection:
            row = _named(connection, owner, name)
            wanted = row.active if number is None else number
            content = _file(connection, name, row.id, wanted)
        if content is None:
            raise _no_version(name, wanted)
        return wanted, content

    def activate(self, owner: str, name: str, number: int) -> Kept:
        """Let an earlier or later version answer.

        Raises:
            ClassifierNotFound: there is none.
        """
        with self._database.write() as connection:
            row = _named(connection, owner, name, for_update=True)
            _kept(connection, row).version(number)
            mine = classifiers.c.id == row.id
            connection.execute(update(classifiers).where(mine).values(active=number))
            return _kept(connection, _named(connection, owner, name))

    def delete(self, owner: str, name: str) -> None:
        """Delete a classifier with all its versions.

        Raises:
            ClassifierNotFound: the owner has none.
        """
        with self._database.write() as connection:
            row = _named(connection, owner, name, for_update=True)
            connection.execute(delete(classifiers).where(classifiers.c.id == row.id))
        self._database.give_back_space()

    def delete_version(self, owner: str, name: str, number: int) -> None:
        """Delete one version that does not answer.

        Raises:
            ClassifierNotFound: there is none.
            VersionInUse: it answers.
        """
        with self._database.write() as connection:
            row = _named(connection, owner, name, for_update=True)
            _kept(connection, row).version(number)
            if row.active == number:
                raise VersionInUse(
                    f"Version {number} of {name!r} answers: activate another one first, or delete "
                    "the classifier."
                )
            connection.execute(
                delete(classifier_versions).where(
                    classifier_versions.c.classifier == row.id,
                    classifier_versions.c.version == number,
                )
            )
        self._database.give_back_space()

    def _add(self, owner: str, name: str, new: NewVersion, by: str) -> int:
        now = self._now()
        mine = (classifiers.c.owner == owner) & (classifiers.c.name == name)
        with self._database.write() as connection:
            row = connection.execute(select(classifiers).where(mine).with_for_update()).first()
            if row is None:
                _check_quota(connection, owner)
                values = {"owner": owner, "name": name, "active": 1, "last": 0, "created_at": now}
                connection.execute(insert(classifiers).values(**values))
                row = connection.execute(select(classifiers).where(mine)).one()
            if (made := _made_by(connection, row.id, new.job)) is not None:
                return made
            _check_versions(connection, row)
            number: int = row.last + 1
            connection.execute(
                insert(classifier_versions).values(
                    classifier=row.id,
                    version=number,
                    collection=new.collection,
                    about=json.dumps(new.about, allow_nan=False),
                    file=new.file,
                    by=by,
                    created_at=now,
                    job=new.job,
                    digest=hashlib.sha256(new.file).hexdigest(),
                )
            )
            connection.execute(update(classifiers).where(mine).values(active=number, last=number))
        return number


def _file(connection: Connection, name: str, key: int, version: int) -> bytes | None:
    columns = classifier_versions.c
    query = select(columns.file, columns.digest)
    row = connection.execute(
        query.where(columns.classifier == key, columns.version == version)
    ).first()
    if row is None:
        return None
    content: bytes = row.file
    if row.digest is not None and hashlib.sha256(content).hexdigest() != row.digest:
        log.error("taught classifier damaged", head=name, version=version)
        raise VersionDamaged(
            f"Version {version} of the taught classifier {name!r} was damaged in the database: "
            "activate another version, or teach it again from its labels."
        )
    return content


def _made_by(connection: Connection, classifier: int, job: str | None) -> int | None:
    """The version of a classifier that a job has made before."""
    if job is None:
        return None
    query = select(classifier_versions.c.version).where(
        classifier_versions.c.classifier == classifier, classifier_versions.c.job == job
    )
    made: int | None = connection.execute(query).scalar_one_or_none()
    return made


def _named(connection: Connection, owner: str, name: str, *, for_update: bool = False) -> Row[Any]:
    query = select(classifiers).where(classifiers.c.owner == owner, classifiers.c.name == name)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    if row is None:
        raise ClassifierNotFound(f"There is no taught classifier {name!r}.")
    return row


def _kept(connection: Connection, row: Row[Any]) -> Kept:
    held = classifier_versions.c
    query = select(
        held.version,
        held.collection,
        held.about,
        held.by,
        held.created_at,
        func.length(held.file).label("n_bytes"),
    ).where(held.classifier == row.id)
    versions = [
        Version(one.version, one.collection, json.loads(one.about), *one[3:])
        for one in connection.execute(query.order_by(held.version.desc()))
    ]
    return Kept(row.name, row.active, row.created_at, tuple(versions))


def _check_quota(connection: Connection, owner: str) -> None:
    query = select(func.count()).where(classifiers.c.owner == owner)
    present = connection.execute(query).scalar_one()
    if present >= MAX_CLASSIFIERS:
        raise QuotaExceeded(
            f"There are {present} taught classifiers; at most {MAX_CLASSIFIERS} are allowed. "
            "Delete some.",
            limit=MAX_CLASSIFIERS,
            observed=present + 1,
            unit="classifiers",
        )


def _check_versions(connection: Connection, row: Row[Any]) -> None:
    query = select(func.count()).where(classifier_versions.c.classifier == row.id)
    present = connection.execute(query).scalar_one()
    if present >= MAX_VERSIONS:
        raise QuotaExceeded(
            f"The classifier {row.name!r} has {present} versions; at most {MAX_VERSIONS} are "
            "kept. Delete some.",
            limit=MAX_VERSIONS,
            observed=present + 1,
            unit="versions",
        )


def _no_version(name: str, number: int) -> ClassifierNotFound:
    return ClassifierNotFound(f"The classifier {name!r} has no version {number}.")
