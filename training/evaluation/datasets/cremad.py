"""CREMA-D, acted emotions (Cao et al. 2014): 7,438 clips, 6 classes, with the split of EVAR.

The collection has no split; EVAR drew one by actor, 63, 9 and 19 of them: `cremad.csv` of the EVAR
package lies in the folder, and its file names start from there. The group is the actor, with whose
number a file's name begins.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 2.5


def rows(root: Path) -> list[Row]:
    """The clips by EVAR's `cremad.csv`."""
    return [
        row._replace(group=Path(row.file_name).name.split("_")[0])
        for row in metadata.evar_table(root, "cremad.csv")
    ]
