"""What there is to compare: variants, as settings over a recipe, and the groups that show them."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNTRAINED, LOG_MEL = "untrained", "log-mel"


class ComparisonError(ValueError):
    """A comparison that cannot be made."""


@dataclass(frozen=True)
class Group:
    """Variants that make a table and a figure."""

    name: str
    title: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What there is to compare, as `variants.toml` has it."""

    baseline: str
    core: tuple[str, ...]
    variants: Mapping[str, Sequence[str]]
    groups: tuple[Group, ...]

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan from a TOML file.

        Raises:
            ComparisonError: a group or the core names a variant that there is not.
        """
        content = tomllib.loads(path.read_text())
        groups = tuple(
            Group(name, group["title"], tuple(group["variants"]))
            for name, group in content["groups"].items()
        )
        plan = cls(content["baseline"], tuple(content["core"]), content["variants"], groups)
        plan.chosen([plan.baseline, *plan.core, *(v for group in groups for v in group.variants)])
        return plan

    def chosen(self, only: Sequence[str]) -> list[str]:
        """The variants of these names, of variants or groups; all if there are none.

        Raises:
            ComparisonError: a name of neither.
        """
        groups = {group.name: group.variants for group in self.groups}
        known = [*self.variants, UNTRAINED, LOG_MEL]
        unknown = [name for name in only if name not in known and name not in groups]
        if unknown:
            raise ComparisonError(
                f"no variant or group {', '.join(unknown)}; there are the groups "
                f"{', '.join(groups)} and the variants {', '.join(known)}"
            )
        wanted = {name for one in only for name in groups.get(one, [one])}
        return [name for name in known if name in wanted or not only]
