"""What every section of a recipe is: closed to unknown keys, immutable, finite."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A table of a recipe; the text below a field describes it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, given: Any) -> Any:
        """Refuse `true` in place of a number: it would count as 1."""
        for name, value in given.items() if isinstance(given, dict) else ():
            parts = _parts(cls.model_fields[name].annotation) if name in cls.model_fields else []
            inner = value.values() if isinstance(value, dict) and float in parts else [value]
            if parts and bool not in parts and any(isinstance(one, bool) for one in inner):
                raise ValueError(f"{name} is {value}; expected no true or false")
        return given


def settings_of(section: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """All settings of a section and of those within it, by their dotted names."""
    settings: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        inner = [part for part in _parts(field.annotation) if _is_section(part)]
        if not inner:
            settings[prefix + name] = field
        for part in inner:
            settings |= settings_of(part, f"{prefix}{name}.") | settings
    return settings


def _parts(annotation: Any) -> list[Any]:
    """The types that a field may have, out of unions and annotations."""
    inner = get_args(annotation)
    return [part for one in inner for part in _parts(one)] if inner else [annotation]


def _is_section(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
