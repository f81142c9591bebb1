"""Streaming from parquet files: time to the first batch, and memory.

    python -m benchmarks.streaming

Writes sets of random 32x32 images into a temporary folder, and reads each in a
new process.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

SHARD = 10_000  # images per file
DISTINCT = 1_000  # images, which are repeated: encoding them takes longer than reading
ROW_GROUP = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000], help="images of each set")
    parser.add_argument("--batches", type=int, default=200, help="batches of 128 that are read")
    parser.add_argument("--buffer", type=int, default=10_000, help="data.buffer")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        print(json.dumps(read(arguments.read, arguments.batches, arguments.buffer)))
        return
    print("images  first batch: s  CPU s  MiB: before  at the first batch  after all  images per CPU s")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), size)
            options = [f"--batches={arguments.batches}", f"--buffer={arguments.buffer}", f"--read={folder}"]
            command = [sys.executable, "-m", "benchmarks.streaming", *options]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        memory = "  ".join(f"{value:.0f}" for value in found["memory"])
        print(f"{size:,}  {found['wall']:.1f}  {found['cpu']:.1f}  {memory}  {found['rate']:.0f}", flush=True)


def write(folder: Path, size: int) -> None:
    """A set of random RGB images of 32x32 with labels, in files of 10,000."""
    import datasets
    from PIL import Image

    datasets.disable_progress_bars()
    encoded = []
    for pixels in np.random.default_rng(0).integers(0, 256, (DISTINCT, 32, 32, 3), dtype=np.uint8):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
        encoded.append({"bytes": stream.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int32")})
    for begin in range(0, size, SHARD):
        images = [encoded[i % DISTINCT] for i in range(begin, min(begin + SHARD, size))]
        labels = (np.arange(len(images)) % 10).tolist()
        shard = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        shard.to_parquet(folder / f"train-{begin:08d}.parquet", batch_size=ROW_GROUP)


def read(folder: Path, batches: int, buffer: int) -> dict[str, object]:
    """Read batches as a training does; the time includes the import of the library and all checks."""
    from nelbo.data.hf_dataset import HFDataset

    memory = [resident()]
    start, cpu = time.perf_counter(), time.process_time()
    data = HFDataset(str(folder), label="label", streaming=True, buffer=buffer)
    data.setup()
    data.record()
    loader = iter(data.train_dataloader())
    next(loader)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    memory.append(resident())
    start = time.process_time()
    count = sum(len(batch.index) for batch in islice(loader, batches - 1))
    memory.append(resident())
    return {"wall": wall, "cpu": cpu, "memory": memory, "rate": count / (time.process_time() - start)}


def resident() -> float:
    """Resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
