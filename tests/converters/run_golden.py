"""Run a bundle's variants, those whose runtime is here, on the golden inputs; print distances from the host as JSON.

`python run_golden.py BUNDLE.lep THREADS`: a process of its own, so that it can run under another CPU (qemu).
"""

import json
import sys
import tempfile
from pathlib import Path

from lepton_edge.bundle import Bundle
from lepton_edge.bundle.golden import distance
from lepton_edge.runtimes import installed, open_session


def main(path: str, threads: int) -> None:
    bundle = Bundle.open(path)
    golden, found = bundle.golden(), {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in bundle.manifest.variants:
            if variant.runtime not in installed():
                continue
            file = Path(folder) / variant.file
            file.write_bytes(bundle.read(variant.file))
            session = open_session(file, bundle.manifest.signature, variant, threads=threads)
            found[variant.name] = distance(golden.expected(variant.name), session.run_samples(golden.inputs))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
