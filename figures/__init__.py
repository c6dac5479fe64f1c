"""Every figure of the paper and of this project, from the command line: `python -m figures list | all | NAME…`.

One file a figure, with two functions: `compute(config)` gives the arrays behind it, `draw(arrays)` puts them on paper
and computes nothing.
"""

import os

# Before torch starts its threads: beside another busy process they would spin for each other, and take three times as
# long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from optimal import interrupt as interrupt
