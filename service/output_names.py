"""The output formats by name: those of one vector in a JSON document, and those of a whole table.

A format is a file in `service/outputs`; parameters, `Accept`, OpenAPI, limits and answers follow.
"""

from service import outputs
from service.discovery import modules
from service.output import Encoding, Table

USUAL = "json"

_FORMATS: list[Encoding | Table] = [module.FORMAT for module in modules(outputs)]
_FORMATS.sort(key=lambda form: form.name != USUAL)
ENCODINGS = {form.name: form for form in _FORMATS if isinstance(form, Encoding)}
TABLES = {form.name: form for form in _FORMATS if isinstance(form, Table)}
OUTPUTS: dict[str, Encoding | Table] = ENCODINGS | TABLES
