"""A run's event files as TensorBoard itself reads them: python read.py RUN STEP...

Exits with 1 and says what is wrong unless every number that the run logged is there once for each STEP and no other,
equal to the one in metrics.jsonl, and sample grids and the program's text are there.
"""

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def expect(holds, what):
    if not holds:
        sys.exit(f"wrong: {what}")


def main(run, steps):
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = set().union(*lines) - {"step", "seconds"}
    tags = events.Tags()
    expect(set(tags["scalars"]) == names, f"scalars {tags['scalars']}, metrics {sorted(names)}")
    for name in names:
        logged = {line["step"]: line[name] for line in lines if name in line}
        read = [(event.step, event.value) for event in events.Scalars(name)]
        expect([step for step, _ in read] == sorted(logged), f"{name} at steps {read}, logged {logged}")
        for step, value in read:
            expect(abs(value - logged[step]) <= 1e-6 * abs(logged[step]), f"{name} at {step}: {value}, {logged[step]}")
    expect([line["step"] for line in lines] == steps, f"lines {lines}")
    expect(tags["images"] == ["samples"], f"images {tags['images']}")
    shown = [image.step for image in events.Images("samples")]
    files = sorted(int(file.stem.split("-")[1]) for file in (run / "samples").glob("*.png"))
    expect(shown == files, f"sample grids of {shown}, files of {files}")
    first = events.Images("samples")[0]
    expect((first.width, first.height) == (182, 182), f"a grid of {first.width}x{first.height}")
    png = (run / "samples" / f"step-{first.step:08}.png").read_bytes()
    expect(first.encoded_image_string == png, "a grid is the file's")
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("program")]
    expect(len(texts) == 1 and "    Program(" in texts[0] and "train_step" in texts[0], f"texts {texts}")
    print(f"{len(names)} numbers at steps {steps}, {len(shown)} grids, and the program's text")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(step) for step in sys.argv[2:]])
