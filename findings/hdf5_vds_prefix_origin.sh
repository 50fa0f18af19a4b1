#!/usr/bin/env bash
# HDF5_VDS_PREFIX: a plain folder takes effect when it is set inside a running process, "${ORIGIN}" only when it is set before.
#
# h5py 3.16.0 with the HDF5 2.0.0 of its wheel, Linux. A virtual data set looks for its sources under the folders of
# HDF5_VDS_PREFIX. A folder, also one of several between colons, is honoured whenever a data set is opened, so os.environ works
# after the import of h5py. The form "${ORIGIN}/...", the folder of the file itself, is honoured only if the variable was there
# when the process started; set later, the sources are not found and fill values are returned without an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
cat > "$folder/show.py" <<'PYTHON'
import os
import sys

import h5py
import numpy as np

folder, late = sys.argv[1], sys.argv[2:]
os.makedirs(f"{folder}/sources", exist_ok=True)
os.makedirs(f"{folder}/virtual", exist_ok=True)
with h5py.File(f"{folder}/sources/s.h5", "w") as handle:
    handle["x"] = np.ones((4, 3))
layout = h5py.VirtualLayout((4, 3), "f8")
layout[...] = h5py.VirtualSource("s.h5", "x", shape=(4, 3))
with h5py.File(f"{folder}/virtual/v.h5", "w") as handle:
    handle.create_virtual_dataset("v", layout)
if late:
    os.environ["HDF5_VDS_PREFIX"] = late[0]
with h5py.File(f"{folder}/virtual/v.h5") as handle:
    print(h5py.version.hdf5_version, handle["v"][0, 0])
PYTHON
show() { "$folder/venv/bin/python" "$folder/show.py" "$folder" "$@"; }
plain_late=$(show "/nowhere:$folder/sources")
origin_late=$(show '${ORIGIN}/../sources')
origin_early=$(HDF5_VDS_PREFIX='${ORIGIN}/../sources' show)
echo "a folder, set after the start:  $plain_late"
echo "ORIGIN, set after the start:    $origin_late"
echo "ORIGIN, set before the start:   $origin_early"
[ "$plain_late" = "2.0.0 1.0" ] && [ "$origin_late" = "2.0.0 0.0" ] && [ "$origin_early" = "2.0.0 1.0" ]
