"""Every figure of the paper and of this project, from the command line: `python -m figures list | all | NAME…`.

One file a figure, with two functions: `compute(config)` gives the arrays behind it, `draw(arrays)` puts them on paper
and computes nothing.
"""

import os

# Before torch starts its threads. On a machine with other work they would otherwise spin for each other, and a figure
# would take ten times as long; on an idle one it makes no difference that can be measured.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
