"""`/problems/...`: the pages that the `type` of a problem points to."""

from fastapi import APIRouter

from service.openapi import problem_responses
from service.problem_types import PROBLEM_TYPES, ProblemType
from service.problems import Problem
from service.schemas import ProblemPage
from service.traffic.access import open_to_all
from service.untrusted import printable

router = APIRouter(prefix="/problems", tags=["problems"])


@router.get("", summary="List the problems")
@open_to_all
async def list_problems() -> list[ProblemPage]:
    """Every kind of failure that there is."""
    return [_page(kind) for kind in PROBLEM_TYPES.values()]


@router.get("/{slug}", summary="Explain a problem", responses=problem_responses(["not-found"]))
@open_to_all
async def explain_problem(slug: str) -> ProblemPage:
    """One kind of failure and what to do about it."""
    if slug not in PROBLEM_TYPES:
        raise Problem("not-found", f"There is no problem called {printable(slug)!r}.")
    return _page(PROBLEM_TYPES[slug])


def _page(kind: ProblemType) -> ProblemPage:
    return ProblemPage(type=kind.uri, status=kind.status, title=kind.title, remedy=kind.remedy)
