"""Takes the weights of the classifier whose features `gcc-gan eval` compares images by out of a run's checkpoint.

    gcc-gan train lenet --data mnist --epochs 3 --seed 1 --name lenet
    python3 tests/data/make_classifier.py runs/lenet/checkpoint.safetensors src/train/quality/lenet.safetensors

Writes the parameters alone, in the order of their names, and prints the SHA-256 that src/train/quality/classifier.rs names.
"""

import hashlib
import json
import pathlib
import struct
import sys


def main(source: str, target: str) -> None:
    data = pathlib.Path(source).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    names = sorted(name for name in header if name.startswith(("body/", "head/")) and name.endswith(("/weight", "/bias")))
    new, body = {}, b""
    for name in names:
        begin, end = header[name]["data_offsets"]
        new[name] = {**header[name], "data_offsets": [len(body), len(body) + end - begin]}
        body += data[8 + length + begin : 8 + length + end]
    text = json.dumps(new, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    out = struct.pack("<Q", len(text)) + text + body
    pathlib.Path(target).write_bytes(out)
    print(f"{target}: {len(names)} tensors, {len(out)} bytes, {hashlib.sha256(out).hexdigest()}")


main(*sys.argv[1:])
