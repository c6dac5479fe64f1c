"""Studies: networks trained and measured over a grid of cells, and the tables that came of it, which figures read.

`python -m neural study NAME` makes one again, cell by cell; `table(NAME)` is what is shipped.
"""

from .catalogue import STUDIES, study
from .plan import Cell, Place, Study, Tables
from .shelf import Done, names, table

__all__ = ["STUDIES", "Cell", "Done", "Place", "Study", "Tables", "names", "study", "table"]
