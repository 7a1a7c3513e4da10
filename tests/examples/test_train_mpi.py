"""train.py in several processes, with small networks: they train as one process does, any number of processes goes on
with a run, and whatever is lost ends the job soon."""

import json
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import launch
import numpy as np
import pytest
from programs import FILES, TIMES, files, metrics

import minicnn

FOLDERS = {1: "one", 2: "two", 3: "three"}  # by the number of processes
COMMON = (
    "--batch-size 4 --schedule constant --lr 0.01 --momentum 0.9 --seed 3 --epochs 2"  # the last batch has 2 images
)
RUNS = {  # name: options, and the run of one process that is to be the same
    "data": ("", "data"),
    "sharded": ("--parallel sharded", "data"),
    "hybrid": ("--parallel hybrid", "data"),
    "plateau": ("--schedule plateau --patience 0 --epochs 4 --parallel hybrid", "plateau"),
    "statistics": ("--mean image --color-pca --ten-crop --parallel sharded --batch-size 16", "statistics"),
    "frozen": ("--from one/data/best.safetensors --freeze --parallel hybrid", "frozen"),
    "head": ("--from one/data/best.safetensors --head-lr 0.05 --parallel sharded", "head"),
    "photos": ("--data photos --batch-size 5", "photos"),
    "columns": ("--parallel columns --mean image", "columns"),
}
ALONE = {name for _, name in RUNS.values()}
TRIALS = [(size, name) for size in (2, 3) for name in RUNS if (size, name) != (3, "columns")]
BEGUN = ["data", "sharded", "hybrid", "columns"]  # those that also stop after an epoch


def job(out, options=""):
    return [*COMMON.split(), *options.split(), "--out", out]


def resume(source, out, options=""):
    return ["--resume", f"{source}/last.safetensors", "--epochs", "2", *options.split(), "--out", out]


def base(size):
    """The runs of so many processes; and those that stop after an epoch, with their continuation."""
    folder, names = FOLDERS[size], [name for name in RUNS if (size, name) in TRIALS or (size == 1 and name in ALONE)]
    jobs = [job(f"{folder}/{name}", RUNS[name][0]) for name in names]
    for name in set(names) & set(BEGUN):
        jobs.append(job(f"{folder}/begun-{name}", f"{RUNS[name][0]} --epochs 1"))
        jobs.append(resume(f"{folder}/begun-{name}", f"{folder}/continued-{name}"))
    return jobs


def start(folder, size, jobs, *fault, name="jobs"):
    """Begin these jobs, whose files beside their runs have names that begin so."""
    (folder / f"{name}.json").write_text(json.dumps(jobs))
    return launch.start(size, "small_train.py", folder / f"{name}.json", *fault, cwd=folder)


def finish(running):
    """status, out, err and seconds, when mpiexec has ended."""
    begin = time.perf_counter()
    try:
        out, err = running.communicate(timeout=launch.PATIENCE)
    except subprocess.TimeoutExpired:
        running.kill()
        out, err = running.communicate()
        pytest.fail(f"it has not ended:\n{out}\n{err}")
    return SimpleNamespace(status=running.returncode, out=out, err=err, seconds=time.perf_counter() - begin)


def succeed(folder, size, jobs):
    result = finish(start(folder, size, jobs))
    assert result.status == 0, f"{size}: {result.out}\n{result.err}"
    return result


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the runs of one, two and three processes; and what they printed."""
    image = pytest.importorskip("PIL.Image")
    folder, rng = tmp_path_factory.mktemp("mpi"), np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("cat", "dog", "eel")):
            (folder / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (70 + 9 * i, 90, 3)) + 30 * label
                image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / part / name / f"{i}.png")
    printed = {
        1: succeed(folder, 1, base(1)),
        2: succeed(folder, 2, [*base(2), resume("one/begun-data", "two/from-one", "--parallel hybrid")]),
        3: succeed(
            folder,
            3,
            [
                *base(3),
                resume("one/begun-data", "three/from-one", "--parallel sharded"),
                resume("two/begun-hybrid", "three/from-two"),
                resume("two/begun-columns", "three/from-columns", "--parallel hybrid"),
            ],
        ),
    }
    succeed(
        folder,
        1,
        [
            resume("two/begun-sharded", "one/from-two"),
            resume("three/begun-hybrid", "one/from-three"),
            resume("two/begun-columns", "one/from-columns", "--parallel data"),
        ],
    )
    return SimpleNamespace(folder=folder, printed=printed)


def arrays(folder):
    found, info = minicnn.load(folder / "last.safetensors")
    return found, info["random"]


def same(one, other):
    """Bit for bit."""
    (found, random), (expected, other_random) = arrays(one), arrays(other)
    assert list(found) == list(expected) and random == other_random
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes() and found[name].dtype == array.dtype, name
    assert timeless(one) == timeless(other)


def timeless(folder):
    return [{**row, **dict.fromkeys(TIMES, 0)} for row in metrics(folder)]


def close(one, other):
    """But for rounding, in float32."""
    (found, random), (expected, other_random) = arrays(one), arrays(other)
    assert list(found) == list(expected) and random == other_random
    for name, array in expected.items():
        scale = abs(array).max(initial=0)
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * scale, err_msg=name)
    assert len(metrics(one)) == len(metrics(other))
    for row, other_row in zip(timeless(one), timeless(other), strict=True):
        assert row == pytest.approx(other_row, rel=1e-4)


@launch.needs_mpi
@pytest.mark.parametrize(("size", "name"), TRIALS)
def test_training_is_that_of_one_process(world, size, name):
    run, alone = world.folder / FOLDERS[size] / name, world.folder / "one" / RUNS[name][1]
    close(run, alone)
    ten_crop = {"ten_crop.json"} & files(alone)
    assert files(run) == FILES | ten_crop
    assert bool(ten_crop) == (name == "statistics")
    for file in ten_crop:
        found, expected = (json.loads((folder / file).read_text()) for folder in (run, alone))
        assert found == pytest.approx(expected, rel=1e-4)
    epochs = len(metrics(run))
    assert json.loads((run / "finished.json").read_text())["epochs"] == epochs == (4 if name == "plateau" else 2)
    config, usual = (json.loads((folder / "config.json").read_text()) for folder in (run, alone))
    assert {key for key in config if config[key] != usual[key]} <= {"out", "parallel", "ranks"}
    assert config["ranks"] == size


@launch.needs_mpi
def test_training_does_something(world):
    """The comparisons above are of runs that differ from each other."""
    losses = {name: [row["train_loss"] for row in metrics(world.folder / "one" / name)] for name in ALONE}
    assert len({tuple(rows) for rows in losses.values()}) == len(ALONE)
    assert {row["lr"] for row in metrics(world.folder / "one" / "plateau")} >= {0.01, 0.001}
    before = arrays(world.folder / "one" / "data")[0]
    for folder in FOLDERS.values():
        after = arrays(world.folder / folder / "frozen")[0]
        assert {name for name in before if name.startswith("model") and (before[name] != after[name]).any()} == {
            "model.fc8.weight", "model.fc8.bias",
        }  # fmt: skip


@launch.needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_only_rank_0_prints(world, size):
    printed = world.printed[size]
    assert printed.err == ""
    lines = printed.out.splitlines()
    jobs = len(list((world.folder / FOLDERS[size]).iterdir()))
    assert sum(line.startswith("AlexNet 2012") for line in lines) == jobs
    assert sum(line.startswith(f"in {size} processes (--parallel ") for line in lines) == jobs
    assert sum("; the run is in " in line for line in lines) == jobs
    ten_crop = [line for line in lines if line.startswith("ten crops")]
    assert len(ten_crop) == 1


@launch.needs_mpi
@pytest.mark.parametrize(("size", "name"), [trial for trial in TRIALS if trial[1] in BEGUN])
def test_a_run_goes_on_bit_for_bit(world, size, name):
    folder = world.folder / FOLDERS[size]
    same(folder / f"continued-{name}", folder / name)


@pytest.mark.parametrize(
    "found", ["two/from-one", "three/from-one", "three/from-two", "one/from-two", "one/from-three"]
)
def test_any_number_of_processes_goes_on_with_a_run(world, found):
    close(world.folder / found, world.folder / "one" / "data")


@launch.needs_mpi
@pytest.mark.parametrize("found", ["three/from-columns", "one/from-columns"])
def test_columns_go_on_as_a_whole(world, found):
    close(world.folder / found, world.folder / "one" / "columns")


# ------------------------------------------------------------------------------------ what goes wrong
HINT = r"go on with: mpiexec -n 2 python .*train\.py --resume '?FOLDER/last\.safetensors'?"
FAULTS = {  # name: (options, what goes wrong in epoch 2, at which rank, exit status, what the program says)
    "killed": ("", "killed", 1, None, None),
    "full disk": (
        "", "full disk", 0, 2,
        rf"train\.py: FOLDER/best\.safetensors: .*File too large.*; when that is mended, {HINT}",
    ),
    "one line": (
        "--parallel sharded", "one line", 1, 2,
        rf"train\.py \(rank 1\): this is what went wrong; when that is mended, {HINT}",
    ),
}  # fmt: skip
MORE_FAULTS = {
    "killed 0": ("--parallel hybrid", "killed", 0, None, None),
    "no memory": (
        "", "no memory", 1, 2, r"train\.py \(rank 1\): there is not enough memory: Unable to allocate 8\.00 GiB .*",
    ),
    "no memory 0": ("", "no memory", 0, 2, r"train\.py: there is not enough memory: Unable to allocate 8\.00 GiB .*"),
    "stopped": ("--limit 2", "stopped", 1, 75, rf"rank 0 has waited \d+ s for the other workers: .*the limit is 2 s\); {HINT}"),
    "stopped 0": ("--limit 2", "stopped", 0, 75, rf"rank 1 has waited \d+ s for the other workers: .*the limit is 2 s\); {HINT}"),
    "traceback": ("", "traceback", 1, 1, "RuntimeError: a fault of the program"),
    "interrupted": ("", "waits", 0, 130, f"interrupted: {HINT}"),
    "interrupted 1": ("", "waits", 1, 130, f"interrupted: {HINT}"),
    "rots": (
        "--data rotting --batch-size 5", "rots", 1, 2,
        rf"train\.py \(rank 1\): .*/rotting/val/eel/2\.png: cannot be read: .*; when that is mended, {HINT}",
    ),
}  # fmt: skip
OURS = "train.py", "interrupted", "rank 0 has", "rank 1 has", "RuntimeError"  # how lines begin that are not mpiexec's


def run_into(folder, faults, at_once):
    """The results of these faults, so many at a time; then all runs go on, in one start of two processes."""
    shutil.copytree(folder / "photos", folder / "rotting", dirs_exist_ok=True)
    with ThreadPoolExecutor(at_once) as pool:
        results = dict(zip(faults, pool.map(lambda name: go_wrong(folder, name, *faults[name]), faults), strict=True))
    shutil.copytree(folder / "photos", folder / "rotting", dirs_exist_ok=True)
    succeed(folder, 2, [["--resume", f"lost/{name}/last.safetensors"] for name in faults])
    return results


def go_wrong(folder, name, options, how, rank, *_):
    running = start(folder, 2, [job(f"lost/{name}", options)], how, rank, name=name)
    if how == "waits":
        while not (folder / f"{name} waits").exists() and running.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
    result = finish(running)
    pids = [path.name.split()[-1] for path in folder.glob(f"{name} pid *")]
    for _ in range(50):
        if any(map(alive, pids)):
            time.sleep(0.1)
    result.started, result.left = len(pids), list(filter(alive, pids))
    result.files = files(folder / "lost" / name)
    return result


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def lost(world):
    return run_into(world.folder, FAULTS, 3)  # most of the time they wait


@pytest.fixture(scope="module")
def lost_too(world):
    return run_into(world.folder, MORE_FAULTS, 1)  # some are to wait 2 s at most


def ends(world, name, result, fault):
    options, how, _, status, message = fault
    assert result.seconds < 30 and result.started == 2 and not result.left
    assert result.status != 0 if status is None else result.status == status, result.err
    if message is None:
        assert re.search(r"signal 9\b", result.out + result.err)
    else:
        lines = [line for line in result.err.splitlines() if line.startswith(OURS)]
        assert len(lines) == 1, result.err
        assert re.fullmatch(message.replace("FOLDER", f"lost/{name}"), lines[0]), lines
    assert "epoch 1/2" in result.out
    assert "epoch 2/2" not in result.out or how == "full disk"  # a thread writes, while the program goes on
    assert "finished.json" not in result.files and "last.safetensors" in result.files
    way = options.split()[1] if "--parallel" in options else "photos" if how == "rots" else "data"
    folder = world.folder / "lost" / name
    same(folder, world.folder / "two" / way)  # the run has gone on
    assert files(folder) == FILES


@launch.needs_mpi
@pytest.mark.parametrize("name", FAULTS)
def test_a_lost_process_ends_the_job_and_the_run_goes_on_bit_for_bit(world, lost, name):
    ends(world, name, lost[name], FAULTS[name])


@launch.needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_FAULTS)
def test_more_that_goes_wrong(world, lost_too, name):
    ends(world, name, lost_too[name], MORE_FAULTS[name])


def mistake(folder, size, options, message):
    result = finish(start(folder, size, [[*options.split()]]))
    lines = [line for line in result.err.splitlines() if line.startswith("train.py")]
    assert lines == [f"train.py: {message}"] and result.status == 2 and result.out == "", result


@launch.needs_mpi
def test_a_mistake_is_one_line(tmp_path):
    """Every process makes it."""
    mistake(tmp_path, 3, "--batch-size 2", "--batch-size 2 is too small for 3 processes")
    mistake(tmp_path, 2, "--capture", "--capture is for one process, not for 2: leave it out")
    assert files(tmp_path) == {"jobs.json", *(path.name for path in tmp_path.glob("jobs pid *"))}


@launch.needs_mpi
@pytest.mark.slow
def test_more_mistakes(world):
    folder = world.folder
    mistake(
        folder,
        2,
        "--epochs 0",
        "argument --epochs: '0' is not a whole number of at least 1 (--help explains the options)",
    )
    columns = (
        "--parallel columns is for the two GPUs of the paper: mpiexec -n 2, not 3; "
        "--parallel data or hybrid takes any number, and goes on with a run of columns too"
    )
    mistake(folder, 3, "--parallel columns", columns)
    mistake(folder, 3, "--resume two/begun-columns/last.safetensors --epochs 2 --out three/no", columns)
    mistake(
        folder, 2, "--out two/data",  # only rank 0 sees that
        "--out two/data holds a run: take another folder, or --resume two/data/last.safetensors",
    )  # fmt: skip
