"""What relens costs, beside what its bare parts cost in the same run. It measures; it asserts nothing.

`python -m bench` measures everything, `python -m bench decode search` some, `--quick` roughly, `--write` into
docs/benchmarks.md. Figures are CPU time, because machines are shared; everything runs on one thread, also in the
processes that are started from here.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read when numpy is imported
