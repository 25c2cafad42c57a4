"""The methods that a recipe can name, and which of their options is whose."""

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from training.objectives import barlow_twins, byol, closed_form, self_labeling, tribyol, vicreg
from training.objectives.objective import ObjectiveSettings

AnyMethod = (
    byol.Settings
    | closed_form.Settings
    | self_labeling.Settings
    | tribyol.Settings
    | vicreg.Settings
    | barlow_twins.Settings
)

METHODS: dict[str, type[ObjectiveSettings]] = {
    settings.model_fields["name"].default: settings for settings in get_args(AnyMethod)
}
DEFAULT = "byol"


def _checked(section: Any) -> Any:
    """A section with the method's name in it, without options of other methods."""
    if not isinstance(section, dict):
        return section
    section = {"name": DEFAULT, **section}
    name = section["name"]
    if isinstance(name, str) and name in METHODS:
        for option in section.keys() - METHODS[name].model_fields.keys():
            owners = [other for other, m in METHODS.items() if option in m.model_fields]
            if owners:
                raise ValueError(
                    f"{option} is an option of {' and '.join(owners)}, and the method is {name}; "
                    f"leave it out, or choose objective.name = {owners[0]!r}"
                )
    return section


def without_options(section: dict[str, Any]) -> dict[str, Any]:
    """What of a section every method understands, for a change of the method."""
    return {key: section[key] for key in section if key in ObjectiveSettings.model_fields}


Method = Annotated[AnyMethod, Field(discriminator="name"), BeforeValidator(_checked)]
