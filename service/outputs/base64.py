"""Float32 in base64, as a member of a JSON document."""

from models.card import packed
from service.output import Encoding

FORMAT = Encoding(name="base64", about="JSON with little-endian float32 in base64", write=packed)
