"""Numbers of a JSON document. Letters: `D` embedding dim."""

import numpy as np

from service.output import Encoding

FORMAT = Encoding(name="json", about="JSON with numbers", write=np.ascontiguousarray)
