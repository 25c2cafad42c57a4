"""JSON in bodies: what is refused costs little, however much of it is wrong."""

from contextlib import suppress
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from service.errors import MAX_ERRORS, validation_problem
from service.formats.collection_requests import (
    CollectionTerms,
    Deletion,
    ItemsRequest,
    LabelsRequest,
    SearchRequest,
)
from service.formats.filter_requests import FilterRequest, filter_of
from service.formats.job_requests import of_form
from service.formats.json_body import parse_object, validated
from service.formats.openai_embeddings import OpenAIParameters
from service.formats.teaching_requests import TeachRequest
from service.problems import Problem
from service.streams.live import LiveConfig

MANY = 20_000
MEMBERS: dict[str, Any] = {f"m{index}": None for index in range(MANY)}
UNKNOWN: dict[str, Any] = dict.fromkeys(MEMBERS, 1)

MODELS: list[type[BaseModel]] = [
    CollectionTerms,
    Deletion,
    ItemsRequest,
    LabelsRequest,
    LiveConfig,
    OpenAIParameters,
    SearchRequest,
    TeachRequest,
]


def refused(model: type[BaseModel], document: dict[str, Any]) -> RequestValidationError:
    with pytest.raises(RequestValidationError) as caught:
        validated(model, document)
    return caught.value


@pytest.mark.parametrize("model", MODELS)
def test_a_million_unknown_members_are_refused_for_the_first_of_them(
    model: type[BaseModel],
) -> None:
    errors = refused(model, UNKNOWN).errors()
    assert len(errors) < 2 * MAX_ERRORS
    assert any(error["type"] == "extra_forbidden" for error in errors)


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (SearchRequest, {"positive": [{"vector": ["1"] * MANY}] * 8}),
        (SearchRequest, {"positive": [1] * MANY}),
        (SearchRequest, {"positive": [UNKNOWN]}),
        (SearchRequest, {"filter": UNKNOWN}),
        (SearchRequest, {"filter": {"metadata": MEMBERS}}),
        (SearchRequest, {"filter": {"metadata": {"a": [None] * MANY}}}),
        (SearchRequest, {"filter": {"metadata": {"a": UNKNOWN}}}),
        (SearchRequest, {"filter": {"ids": [1] * MANY}}),
        (Deletion, {"filter": {"metadata": MEMBERS}}),
        (Deletion, {"filter": {"labels": [""] * MANY}}),
        (ItemsRequest, {"metadata": MEMBERS}),
        (ItemsRequest, {"items": [{"metadata": MEMBERS}]}),
        (LabelsRequest, {"labels": [UNKNOWN]}),
        (LabelsRequest, {"labels": [None] * MANY}),
        (TeachRequest, {"labels": [""] * MANY, "name": "a", "collection": "b"}),
    ],
)
def test_what_is_wrong_many_times_is_told_a_few_times(
    model: type[BaseModel], document: dict[str, Any]
) -> None:
    error = refused(model, document)
    assert len(error.errors()) < 2 * MAX_ERRORS
    problem = validation_problem(error.errors())
    assert len(problem.extensions["invalid_params"]) <= MAX_ERRORS
    assert len(str(problem.extensions)) < 10_000


@pytest.mark.parametrize("moment", ["2026-11-27T21:00:00Z", "2026-11-27 22:00:00+01:00"])
def test_a_time_is_one_of_rfc_3339(moment: str) -> None:
    asked = FilterRequest.model_validate({"created_to": moment})
    assert asked.filter().created_to == 1_795_813_200


@pytest.mark.parametrize("moment", [5, 1.8e12, "5", "1795813200", "2026-11-27", True])
def test_a_number_is_no_time_for_its_unit_would_be_guessed(moment: Any) -> None:
    assert "2026-11-27T21:00:00Z" in str(refused(FilterRequest, {"created_to": moment}))


def test_a_byte_order_mark_is_no_part_of_the_json() -> None:
    assert parse_object(bytearray(b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b'{"a": 1,}', "breaks at line 1, column"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "breaks at line 1, column 1"),
    ],
)
def test_what_is_no_json_is_told_apart(body: bytes, reason: str) -> None:
    with pytest.raises(Problem, match=reason):
        parse_object(bytearray(body))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": {"b": 1, "c": "x:y", "b": 1}}', "b"),
        (b'{"a": [1.5, [{"d": null, "\\u0064": null}]]}', "d"),
        (b'{"a": "%s", "a": ""}' % (b"A" * (1 << 20)), "a"),
    ],
)
def test_a_member_that_is_there_twice_is_refused_by_name(body: bytes, name: str) -> None:
    with pytest.raises(Problem, match=f"{name} is given twice; send it once"):
        parse_object(bytearray(body))


def test_json_in_a_field_is_refused_likewise() -> None:
    for parse in (
        lambda text: of_form({"embed": text}),
        filter_of,
    ):
        with pytest.raises(Problem, match="a is given twice"):
            parse('{"a": {}, "a": {}}')


def test_members_of_one_name_in_several_objects_are_no_fault() -> None:
    body = b'{"a": {"a": 1}, "b": [{"a": 9999999999999999999999}, {"a": 1e999}], "c": "a:a"}'
    assert parse_object(bytearray(body.replace(b"1e999", b"1e9")))["b"][1] == {"a": 1e9}


def test_brackets_beyond_what_can_be_looked_into_are_a_refusal() -> None:
    for n in (900, 1000, 1023, 5000):
        with suppress(Problem):
            parse_object(bytearray(b'{"a":' + b"[" * n + b"{}" + b"]" * n + b"}"))
