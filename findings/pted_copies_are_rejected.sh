#!/usr/bin/env bash
# pted: a sample against its own copies has the smallest p-value there is, as if it came from another distribution.
#
# pted 2.0.0, NumPy 2.4.6. A two-sample test on two equal sets is expected to say p = 1. pted counts both tails of the permuted
# energy distance by default, so that sets that are more alike than chance allows (a mock set that repeats its training set) are
# rejected like sets that differ, with the same small number: the p-value does not say which of the two it found. With
# two_tailed=False, copies have p = 1. Independent draws of one distribution pass either way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pted==2.0.0 numpy==2.4.6
cat > "$folder/show.py" <<'PYTHON'
from importlib.metadata import version

import numpy as np
from pted import pted

random = np.random.default_rng(0)
one = random.normal(size=(200, 8))
sets = {
    "the same numbers": one.copy(),
    "copies with 5% noise": one + 0.05 * random.normal(size=one.shape),
    "independent draws": random.normal(size=one.shape),
    "draws shifted by one": 1 + random.normal(size=one.shape),
}
print("pted", version("pted"))
for name, other in sets.items():
    p = [pted(one, other, permutations=499, two_tailed=both, rng=np.random.default_rng(1)) for both in (True, False)]
    print(f"{name}: default {p[0]:.3f}, one-tailed {p[1]:.3f}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/show.py")
echo "$seen"
grep -q "^pted 2.0.0$" <<< "$seen"
grep -q "^the same numbers: default 0.002, one-tailed 1.000$" <<< "$seen"
grep -q "^copies with 5% noise: default 0.002, one-tailed 1.000$" <<< "$seen"
grep -q "^draws shifted by one: default 0.002, one-tailed 0.002$" <<< "$seen"
! grep -q "^independent draws: default 0.00" <<< "$seen"
