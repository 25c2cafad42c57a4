"""`POST /v1/collections/{name}/search`: what in a collection sounds like these examples."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from fastapi import APIRouter, Request, Response

from models.runtime import Floats
from service.collecting import Collecting
from service.collections.filters import EVERYTHING
from service.collections.records import Collection
from service.collections.search import Query
from service.context import Collected, Context, NameInPath, Shared, model_of
from service.exchange import embed, exchange_with
from service.formats.answers import all_embedded, json_response
from service.formats.collection_answers import HitAnswer, HitList
from service.formats.collection_requests import Example, SearchRequest
from service.formats.json_body import (
    JSON,
    MAX_VALUES,
    parse_object,
    receive_json,
    refuse_query,
    take_values,
    validated,
)
from service.formats.json_fields import from_texts
from service.openapi import Responses, problem_responses, search_body
from service.problem_types import AUDIO_PROBLEMS
from service.problems import invalid_parameter
from service.settings import Settings
from service.telemetry.timing import Timing
from service.threads import in_thread
from service.traffic.access import needs_key
from service.uploads.body import Body, Parse, declared_media_type, read_body

router = APIRouter(tags=["collections"])

_FOUND: Responses = {200: {"model": HitList, "description": "The hits, best first."}}


@dataclass(frozen=True)
class SearchBody(Body):
    """The files that are examples, and everything else that is asked for."""

    asked: SearchRequest = field(default_factory=SearchRequest)


@router.post(
    "/v1/collections/{name}/search",
    summary="Search by example",
    responses=_FOUND
    | problem_responses(
        [
            *AUDIO_PROBLEMS,
            "collections-off",
            "storage-unavailable",
            "collection-not-found",
            "item-not-found",
            "collection-space",
            "bad-example",
        ]
    ),
    openapi_extra=search_body(SearchRequest),
)
@needs_key("search", metered=True, takes_place=True)
async def search(
    request: Request, shared: Shared, collected: Collected, name: NameInPath
) -> Response:
    """Find what sounds like some examples and unlike others: files, items, or vectors.

    A file is one example as a whole. `percentile` says what a score is worth in this collection.
    """
    collection = await collected.find(request.state.caller, name)

    async def answer(body: SearchBody, nothing: SearchRequest, timing: Timing) -> Response:
        files = await _embedded(request, shared, collection, body, timing)
        with timing.stage("search"):
            return await in_thread(_found, collected, collection, files, body.asked)

    return await exchange_with(_read, request, shared, SearchRequest(), answer)


async def _read(request: Request, settings: Settings) -> Parse[SearchBody]:
    """Receive JSON, or files with the same members as fields of the form, or in the query."""
    if declared_media_type(request) == JSON:
        refuse_query(request)
        document = await receive_json(request, settings)

        async def parse_json() -> SearchBody:
            await take_values(document, MAX_VALUES, request.state.share)
            members = await in_thread(parse_object, document)
            return SearchBody([], asked=validated(SearchRequest, members))

        return parse_json
    parse = await read_body(request, settings)

    async def parse_form() -> SearchBody:
        body = await parse()
        members = from_texts(dict(request.query_params) | body.fields)
        asked = validated(SearchRequest, members, strict=False)
        return SearchBody(body.uploads, asked=asked)

    return parse_form


async def _embedded(
    request: Request, shared: Context, collection: Collection, body: SearchBody, timing: Timing
) -> list[Floats]:
    """The vectors of the files, each as a whole.

    Raises:
        Problem: one of them cannot be used, or the model is not served.
    """
    if not body.uploads:
        return []
    encoder = model_of(shared, collection).network
    outcomes = await embed(request, shared, encoder, body, None, timing)
    return [file.embedding for file in all_embedded(outcomes, "file")]


def _found(
    collected: Collecting, collection: Collection, files: Sequence[Floats], asked: SearchRequest
) -> Response:
    unlike = set(asked.negative_files)
    if unlike and max(unlike) >= len(files):
        reason = f"negative_files names file {max(unlike)}; there are {len(files)}, from 0."
        raise invalid_parameter("negative_files", reason, value=max(unlike), limit=len(files) - 1)
    examples = _Examples(collected, collection)
    positive = [vector for index, vector in enumerate(files) if index not in unlike]
    negative = [vector for index, vector in enumerate(files) if index in unlike]
    positive += [examples.vector(e, f"positive[{i}]") for i, e in enumerate(asked.positive)]
    negative += [examples.vector(e, f"negative[{i}]") for i, e in enumerate(asked.negative)]
    if not positive:
        reason = "positive is empty: send a file, or name an item or a vector to search for."
        raise invalid_parameter("positive", reason, value="[]")
    found = collected.searcher.find(
        collection,
        Query(
            np.stack(positive),
            np.stack(negative) if negative else None,
            () if asked.include_examples else examples.keys,
            EVERYTHING if asked.filter is None else asked.filter.filter(),
            asked.top_k,
            asked.group == "item",
            asked.exact,
            asked.min_percentile,
        ),
    )
    return json_response(
        HitList(
            collection=collection.name,
            space_id=collection.terms.space_id,
            exact=found.is_exact,
            data=[HitAnswer.of(hit) for hit in found.hits],
        )
    )


class _Examples:
    """Examples that are no files -> vectors; `keys` are those of the items among them."""

    def __init__(self, collected: Collecting, collection: Collection) -> None:
        self._searcher, self._collection = collected.searcher, collection
        self.keys: list[int] = []

    def vector(self, example: Example, name: str) -> Floats:
        """The vector (D,) of an example, which the request calls `name`."""
        if example.id is not None:
            vector, key = self._searcher.example(
                self._collection, example.id, example.start_s, example.end_s
            )
            self.keys.append(key)
            return vector
        with np.errstate(over="ignore"):
            given = np.array(example.vector, np.float32)
        wanted = self._collection.terms.dimensions
        if len(given) != wanted:
            reason = (
                f"{name} has {len(given)} values; the vectors of this collection have {wanted}."
            )
            raise invalid_parameter(name, reason, value=len(given), limit=wanted)
        largest = np.abs(given).max()
        if not 0 < largest < np.inf:
            reason = f"{name} is no direction: its values are all 0, or too large."
            raise invalid_parameter(name, reason, value="vector")
        _, exponent = np.frexp(largest)
        scaled: Floats = np.ldexp(given, -exponent)  # the same direction, whose square is a float32
        return scaled
