"""The command line: what it explains, what it assumes, and what it refuses."""

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import programs
import pytest
from support import options, recipes
from support.settings import DEFAULTS, RECIPE_OPTIONS, adopt, parse

import minicnn
from minicnn.backends import Backend, devices
from minicnn.checkpoint import CheckpointError
from minicnn.checks import escaped
from minicnn.data import DataError
from minicnn.workers import Workers

WRITES = {  # each program: what its --help says that it writes
    "train.py": "config.json metrics.csv curves.png filters.png best.safetensors last.safetensors ten_crop.json "
    "finished.json",
    "evaluate.py": "FILE.png FILE", "predict.py": "FILE.png", "convert.py": "INTO",
    "prepare.py": "TARGET train/ val/ statistics.safetensors prepare.json broken.txt",
    "cuda_convnet/train.py": "config.json metrics.csv curves.png filters.png best.safetensors last.safetensors",
    "ablations/run.py": "runs table.md table.json differences.png relu.png",
}  # fmt: skip
PROGRAMS = sorted(WRITES)
OPTIONS = [
    "recipe", "data", "workers", "processes", "seed", "threads", "device", "precision", "out", "resume",
    *(name.replace("_", "-") for name in recipes.TABLE),
]  # fmt: skip


def test_help_explains_every_option_in_groups(run):
    result = run("train.py", "--help")
    assert result.status == 0 and not result.err
    groups = re.findall(r"^(\w[\w ]*):$", result.out, re.MULTILINE)
    assert len(groups) >= 4
    for name in OPTIONS:  # each with an explanation, after it or on the next line
        assert re.search(rf"^  --{name}(, --no-{name}| \S+)?\s+\(?\w+", result.out, re.MULTILINE), name
    assert "\n  mpiexec -n 2 python train.py " in result.out
    assert (programs.PROGRAMS / re.search(r"see (\S+) beside train\.py", result.out)[1]).exists()
    assert "synthetic" in result.out and "cifar10:DIR" in result.out and "FOLDER" in result.out


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_what_is_written_and_has_examples_that_the_program_takes(run, monkeypatch, program):
    """Of options that are there, with values that they take."""
    help = run(program, "--help").out
    assert all(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", help) for name in [*WRITES[program].split(), "writes"])
    examples = re.findall(
        rf"^  (?:mpiexec -n \d+ python )?({program}.*)$", help.partition("\nexamples:\n")[2], re.MULTILINE
    )
    assert len(examples) >= 2 and not re.search(r"^.{101}", help.partition("\noptions:\n")[2], re.MULTILINE)
    taken, original = [], options.Parser.parse_args

    def parse_args(self, *arguments, **others):
        taken.append(original(self, *arguments, **others))
        raise options.UsageError("taken")

    monkeypatch.setattr(options.Parser, "parse_args", parse_args)
    for example in examples:
        assert run(*shlex.split(example)).err == f"{Path(program).name}: taken\n"
    assert len(taken) == len(examples)


@pytest.mark.parametrize("data", ["synthetic", "cifar10:somewhere", "somewhere"])
def test_defaults_depend_on_the_data_and_give_way(data):
    settings, given = parse(["--data", data])
    assert settings.epochs >= 1 and settings.batch_size >= 1 and settings.lr > 0
    assert (settings.variant, settings.device, settings.seed, given) == ("2012", "cpu", 0, {"data"})
    settings, given = parse(["--data", data, "--epochs", "3", "--batch-size", "5", "--lr", "0.5"])
    assert (settings.epochs, settings.batch_size, settings.lr) == (3, 5, 0.5)
    assert given == {"data", "epochs", "batch_size", "lr"}


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_a_recipe_sets_everything_and_each_option_one_thing(recipe):
    """The values are those that the table and the options have for something else."""
    arguments = ["--recipe", recipe, "--data", "somewhere"]
    whole, given = parse(arguments)
    assert given == {"recipe", "data"} and set(recipes.TABLE) <= set(vars(whole))
    for group in RECIPE_OPTIONS.values():
        for name, (values, _) in group.items():
            option = "--" + name.replace("_", "-")
            if values is bool:
                value, words = not getattr(whole, name), [option if not getattr(whole, name) else "--no-" + option[2:]]
            elif isinstance(values, tuple):
                value = next(value for value in values if value != getattr(whole, name))
                words = [option, value]
            else:
                value = 0.125 if values in (options.positive, options.share) else 77
                words = [option, str(value)]
            one, given = parse([*arguments, *words])
            changed = {key for key in vars(whole) if getattr(whole, key) != getattr(one, key)}
            assert getattr(one, name) == value and given == {"recipe", "data", name}
            assert name in changed and changed <= {name, "scale" if name == "init" else name}


@pytest.mark.parametrize(
    "arguments, side",
    [
        ("", 227),  # as they are drawn
        ("--data somewhere", 256),
        ("--data somewhere --variant 2014", 256),
        ("--data somewhere --recipe tutorial", 256),
        ("--recipe paper", 256),
    ],
)
def test_the_side_that_pictures_are_scaled_to(arguments, side):
    assert parse(arguments.split())[0].resize == side


def test_every_setting_of_a_recipe_has_an_option():
    assert {name for group in RECIPE_OPTIONS.values() for name in group} == set(recipes.TABLE)


def test_without_arguments_the_data_are_synthetic():
    settings, given = parse([])
    assert settings.data == "synthetic" and not given


BAD = [
    *(("--batch-size", value) for value in ("0", "-1", "1.5", "many")),
    *(("--epochs", value) for value in ("0", "-3", "x")),
    *(("--lr", value) for value in ("nan", "inf", "-0.1", "fast")),
    *((name, value) for name in ("--momentum", "--weight-decay") for value in ("nan", "inf", "-1")),
    *(("--warmup", value) for value in ("nan", "-0.1", "1", "2")),
    *(("--seed", value) for value in ("-1", "0.5", str(2**63), str(2**64), "9" * 40)),
    *(("--threads", value) for value in ("0", "-2", "two")),
    ("--workers", "-1"),
    ("--variant", "2013"),
    ("--init", "xavier"),
    *(("--precision", value) for value in ("fp16", "", "tf32")),  # a CPU has no tf32
    *(("--device", value) for value in ("nonsense", "gpu:x", "")),
    ("--bath-size", "3"),
    ("--recipe", "ours"),
    *((name, value) for name in ("--resize", "--patience") for value in ("-1", "1.5", "x")),
    *((name, "other") for name in ("--mean", "--scale", "--crop", "--update", "--schedule", "--dropout-scale")),
    ("--epoch", "3"),  # not taken for --epochs
]


@pytest.mark.parametrize("option, value", BAD)
def test_bad_options(mistake, tmp_path, option, value):
    mistake(value if option != "--epoch" else option, "train.py", "--out", tmp_path / "run", option, value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "program, arguments, meant",
    [
        ("train.py", "--bath-size 3", "--batch-size"),
        ("train.py", "--epoch=3", "--epochs"),
        ("train.py", "--weight_decay 0", "--weight-decay"),
        ("train.py", "--no-flips --lrs 1", "--no-flip and --lr"),
        ("evaluate.py", "--chekpoint a", "--checkpoint"),
        ("predict.py", "photo.jpg --tpo 3", "--top"),
        ("prepare.py", "a b --skip-borken", "--skip-broken"),
        ("cuda_convnet/train.py", "--netwrok 80sec", "--network"),
        ("ablations/run.py", "--data a --seed 5", "--seeds"),
        ("convert.py", "a b --too caffe", "--to"),
    ],
)
def test_the_option_that_was_meant_is_named(mistake, program, arguments, meant):
    wrong = next(word for word in arguments.split() if word.startswith("--") and word != "--data")
    mistake(["unrecognized arguments: ", wrong, f": did you mean {meant}? (--help"], program, *arguments.split())


def test_an_option_that_is_like_no_other(mistake):
    found = mistake("unrecognized arguments: --xyzzy -7 (--help", "train.py", "--xyzzy", "-7")
    assert "mean" not in found.err


def test_lines_move_no_cursor(capsys):
    """Whatever is in the name of a file: ends of lines, and characters that terminals act on."""
    for text, shown in {
        "a\nb\r\tc": r"a\nb\r\tc",
        "\x1b[31mred\x07\x7f\x9b": r"\x1b[31mred\x07\x7f\x9b",
        "\u2028 \u2029": r"\u2028 \u2029",
        "été 猫 \xa0\u3000\u200d \\n": "été 猫 \xa0\u3000\u200d \\n",  # as they are
        "\udcff": r"\udcff",  # of a name that is not UTF-8
    }.items():
        assert escaped(text) == shown
    options.say("a\nb")
    options.complain("c\nd")
    out, err = capsys.readouterr()
    assert out == "a\\nb\n" and err.endswith(": c\\nd\n")

    def interrupted():
        raise KeyboardInterrupt("go on with e\nf")

    assert options.command(interrupted) == 130
    assert capsys.readouterr().err == "interrupted: go on with e\\nf\n"


def test_processes_without_workers(mistake, tmp_path):
    mistake("--no-processes", "train.py", "--processes", "--workers", 0, "--out", tmp_path / "run")


@pytest.mark.parametrize("program", ["evaluate.py", "predict.py"])
@pytest.mark.parametrize("option, value", [("--threads", "0"), ("--device", "nonsense"), ("--precision", "tf32")])
def test_bad_options_of_the_other_programs(mistake, finished, program, option, value):
    photos = ["photo.jpg"] * (program == "predict.py")
    mistake(value, program, "--checkpoint", finished.folder / "best.safetensors", *photos, option, value)


@pytest.mark.parametrize(
    "program, arguments",
    [
        ("train.py", ["--resume", ""]),
        ("train.py", ["--out", ""]),
        ("train.py", ["--data", ""]),
        ("cuda_convnet/train.py", ["--resume", "", "--data", "."]),
        ("evaluate.py", ["--data", ""]),
        ("evaluate.py", ["--json", ""]),
        ("predict.py", ["photo.jpg", ""]),
        ("prepare.py", [".", ""]),
    ],
)
def test_names_that_are_empty(mistake, monkeypatch, tmp_path, program, arguments):
    """As "$DATA" is where there is no DATA."""
    monkeypatch.chdir(tmp_path)
    mistake("must not be empty", program, *arguments)
    assert not list(tmp_path.iterdir())


def test_bad_batch_size_of_evaluate(mistake, finished):
    mistake("0", "evaluate.py", "--checkpoint", finished.folder / "best.safetensors", "--batch-size", 0)


def test_a_gpu_without_cupy(mistake, tmp_path, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(devices, "opened", set())
    words = ["gpu", "CuPy", "pip install"]
    mistake(words, "train.py", "--device", "gpu", "--out", tmp_path / "run")
    mistake(words, "evaluate.py", "--checkpoint", finished.folder / "best.safetensors", "--device", "gpu")
    mistake(words, "predict.py", "--checkpoint", finished.folder / "best.safetensors", "photo.jpg", "--device", "gpu:1")
    assert not list(tmp_path.iterdir())


def test_what_a_run_did_not_say_follows_from_the_machine(run, finished, look):
    config = json.loads((finished.folder / "config.json").read_text())
    assert (config["device"], config["precision"], config["workers"], config["threads"]) == ("cpu", "fp32", 1, None)
    assert config["processes"] is False


def test_a_run_that_moves_takes_what_suits_the_other_device():
    saved = {
        **recipes.complete(DEFAULTS),
        "device": "cpu",
        "workers": 3,
        "processes": True,
        "threads": 2,
        "precision": "fp32",
        "epochs": 7,
    }

    def adopted(*arguments, **changes):
        settings, given = parse(["--resume", "run/last.safetensors", *arguments])
        adopt(settings, given, {**saved, **changes})
        machine = settings.workers, settings.processes, settings.threads, settings.precision
        return settings.device, settings.epochs, *machine

    assert adopted() == adopted("--device", "cpu") == ("cpu", 7, 3, True, 2, "fp32")
    assert adopted("--device", "gpu") == ("gpu", 7, None, None, None, None)
    assert adopted("--device", "gpu", "--workers", "5", "--precision", "fp32") == ("gpu", 7, 5, None, None, "fp32")
    there = {"device": "gpu:0", "precision": "tf32"}
    assert adopted(**there) == ("gpu:0", 7, 3, True, 2, "tf32")
    assert adopted("--device", "gpu:1", **there) == ("gpu:1", 7, 3, True, 2, "tf32")
    assert adopted("--device", "cpu", **there) == ("cpu", 7, None, None, None, None)


def test_a_run_in_another_number_of_processes_shares_the_machine_anew(monkeypatch):
    """Cores and images are divided by others; how matrices are multiplied stays."""
    saved = {
        **recipes.complete(DEFAULTS), "device": "gpu:0", "workers": 3, "processes": False, "threads": 2,
        "backend": "cuda", "precision": "fp32",
    }  # fmt: skip
    workers = Workers()
    monkeypatch.setattr(options, "_workers", workers)

    def adopted(size, *arguments, **ranks):
        workers.size = size
        settings, given = parse(["--resume", "run/last.safetensors", *arguments])
        adopt(settings, given, {**saved, **ranks})
        assert (settings.backend, settings.precision) == ("cuda", "fp32")
        return settings.device, settings.workers, settings.processes, settings.threads

    assert adopted(2, ranks=2) == adopted(1, ranks=1) == adopted(1) == ("gpu:0", 3, False, 2)
    assert adopted(3, ranks=2) == adopted(1, ranks=2) == adopted(2) == ("gpu:0", None, None, None)
    assert adopted(3, "--threads", "4", ranks=2) == ("gpu:0", None, None, 4)


def test_a_program_says_why_it_has_not_the_fastest_backend(capsys):
    """Without a C compiler, for example, and then the next one computes; named, such a backend is an error."""

    def closed():
        raise minicnn.DeviceError("there is no such thing: install it")

    def machine(*arguments):
        settings = parse([*arguments])[0]
        options.use_machine(settings)
        return settings.backend, capsys.readouterr().out

    usual = machine()[0]
    fast = Backend("fast", "cpu", {}, default=True, opens=closed)
    try:
        line = f"there is no such thing: install it; without the fast backend, {usual} computes, slower\n"
        assert machine() == (usual, line)
        assert machine("--backend", "numpy") == ("numpy", "")
        with pytest.raises(minicnn.DeviceError, match=r"^backend 'fast': there is no such thing: install it$"):
            machine("--backend", "fast")
    finally:
        fast.remove()


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    """Whatever GPU the settings name, as a checkpoint has rank 0's."""

    class Second(Workers):
        rank, size = 1, 2

        def device(self, name):
            return {"gpu": "gpu:1"}.get(name, name)

    def opened(workers, device):
        settings = parse(["--device", device])[0]
        with pytest.raises(minicnn.DeviceError):
            options.use_machine(settings, workers)
        return asked.pop()

    def refuse(name):
        asked.append(name)
        raise minicnn.DeviceError

    asked = []
    monkeypatch.setattr(options, "open_device", refuse)
    assert [opened(Second(), name) for name in ("gpu", "gpu:0", "gpu:7", "cpu")] == [*["gpu:1"] * 3, "cpu"]
    assert [opened(Workers(), name) for name in ("gpu", "gpu:7", "cpu")] == ["gpu", "gpu:7", "cpu"]


@pytest.mark.parametrize("program", sorted(set(PROGRAMS) - {"train.py"}))
def test_what_runs_in_one_process_is_refused_in_several(mistake, run, monkeypatch, program):
    """Each of them would do all of it, and write the same files."""
    monkeypatch.setenv("PMI_SIZE", "1")  # as one that mpiexec starts alone
    assert run(program, "--help").status == 0
    monkeypatch.setenv("PMI_SIZE", "2")
    mistake("runs in one process: start it without mpiexec", program, "--help")


@pytest.mark.parametrize(
    "error",
    [options.UsageError, CheckpointError, DataError, minicnn.DeviceError, ImportError, OSError],
)
def test_a_users_mistake_is_one_line_and_status_2(capsys, error):
    def fail():
        raise error("it is like this")

    assert options.command(fail) == 2
    assert capsys.readouterr().err.endswith(": it is like this\n")


def test_errors_of_the_system_name_the_file(capsys):
    assert options.command(lambda: os.remove("no/such/file")) == 2
    err = capsys.readouterr().err
    assert err.endswith(": no/such/file: No such file or directory\n") and err.count("\n") == 1


def test_an_interrupt_is_status_130_and_success_0(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert options.command(interrupt) == 130
    assert options.command(lambda: None) == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_each_line_is_there_at_once(look):
    """Also where a file takes them, or a pipe."""
    program = "import sys; from support import options; options.command(lambda: print(sys.stdout.line_buffering))"
    environment = {"PYTHONPATH": str(Path(minicnn.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", program], cwd=look.PROGRAMS, env=environment, capture_output=True)
    assert result.stdout == b"True\n"


@pytest.mark.parametrize(
    "data, means",
    [
        ("photos", "HERE/photos"),
        ("imagenet:a:b", "imagenet:HERE/a:b"),
        ("cifar10:", "cifar10:"),
        ("synthetic",) * 2,
        ("imagenet:~/a", "imagenet:HOME/a"),
    ],
)
def test_data_are_found_from_other_folders_too(tmp_path, monkeypatch, data, means):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert parse(["--data", data])[0].data == means.replace("HERE", os.getcwd()).replace("HOME", str(tmp_path / "home"))


def test_a_standard_output_that_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert options.command(lambda: None) == 0


def test_the_place_of_a_closed_standard_error_is_kept(look):
    """Libraries in C write there, and would into a file of ours."""
    program = "import os; from support import options; options.command(lambda: print(os.open(os.devnull, os.O_RDONLY)))"
    result = subprocess.run(
        shlex.join([sys.executable, "-c", program]) + " 2>&-", shell=True, cwd=look.PROGRAMS, stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(minicnn.__file__).parents[1])},
    )  # fmt: skip
    assert result.returncode == 0 and int(result.stdout) > 2


IN_A_SMALL_WORLD = """
import sys, runpy, pytest, programs
programs.small_world(pytest.MonkeyPatch())
sys.argv = sys.argv[1:]
runpy.run_path(str(programs.PROGRAMS / sys.argv[0]), run_name="__main__")
"""


@pytest.mark.parametrize(
    "arguments, status, words, out",
    [
        (["train.py", "--epochs", "1", "--out", "run"], 0, "the run is in run", "1>&1"),
        (["train.py", "--epochs", "1", "--out", "run"], 0, "the run is in run", "1>&-"),
        (["train.py", "--data", "nowhere"], 2, "train.py: --data ", "1>&1"),
        (["train.py", "--data", "nowhere"], 2, "train.py: --data ", "1>&-"),
        (["evaluate.py", "--checkpoint", "nowhere"], 2, "evaluate.py: nowhere cannot be read: No such file", "1>&1"),
        (["predict.py", "--checkpoint", "nowhere", "photo.jpg"], 2, "predict.py: nowhere cannot be read", "1>&1"),
        (["prepare.py", "nowhere", "there"], 2, "prepare.py: nowhere", "1>&1"),
    ],
)
def test_a_standard_error_that_is_closed(look, tmp_path, arguments, status, words, out):
    """What is said goes to the standard output, if there is one; nothing gets into the files that
    are written."""
    folders = Path(minicnn.__file__).parents[1], look.PROGRAMS, Path(look.__file__).parent
    result = subprocess.run(
        shlex.join([sys.executable, "-c", IN_A_SMALL_WORLD, *arguments]) + f" 2>&- {out}", shell=True, cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join(map(str, folders))}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert result.returncode == status
    assert words in result.stdout if out == "1>&1" else not result.stdout
    assert look.files(tmp_path) == (set() if status else {"run"})
    assert look.files(tmp_path / "run") == (set() if status else look.ONE_EPOCH)


@pytest.mark.parametrize(
    "arguments, size",
    [
        (["train.py", "--batch-size", 7], 7),
        (["evaluate.py", "--checkpoint", "BEST", "--batch-size", 6], 6),
        (["evaluate.py", "--checkpoint", "BEST", "--crops", 10, "--batch-size", 30], 30),
        (["predict.py", "--checkpoint", "BEST", "photo.png"], 1),
    ],
)
def test_a_batch_for_which_the_memory_does_not_suffice(mistake, finished, monkeypatch, tmp_path, arguments, size):
    def forward(*_):
        raise MemoryError("Unable to allocate 3 GiB")

    pytest.importorskip("PIL.Image").new("RGB", (80, 80)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(minicnn.nn.Sequential, "forward", forward)
    arguments = [str(finished.folder / "best.safetensors") if word == "BEST" else word for word in arguments]
    mistake(["Unable to allocate 3 GiB", f"in a batch of {size}: a smaller --batch-size"], *arguments)


@pytest.mark.parametrize("said", [(), ("Unable to allocate 3 GiB",)])
def test_other_memory(capsys, said):
    def fail():
        raise MemoryError(*said)

    assert options.command(fail) == 2
    words = said[0] if said else "a smaller --batch-size needs less"
    assert capsys.readouterr().err.endswith(f": there is not enough memory: {words}\n")
    with pytest.raises(MemoryError, match="none left, in a batch of 3"), options.batch_of(3):
        raise MemoryError


def test_pillows_warnings_are_not_shown():
    """Of an image that it reads all the same, and does not name."""

    def main():
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")

    assert options.command(main) == 0


def test_numbers_that_overflow_are_not_warned_of():
    """A program says itself that a network has diverged."""
    numbers = np.array([1e38, np.inf], np.float32)
    assert options.command(lambda: (numbers * 10 - numbers).sum()) == 0


def test_bugs_are_not_taken_for_mistakes():
    with pytest.raises(ZeroDivisionError):
        options.command(lambda: 1 / 0)


@pytest.mark.parametrize(
    "program, arguments",
    [
        ("train.py", ["--batch-size", "0"]),
        ("train.py", ["--data", "nowhere"]),
        ("train.py", ["--resume", "text.safetensors"]),
        ("evaluate.py", ["--checkpoint", "text.safetensors"]),
        ("predict.py", ["--checkpoint", "nowhere.safetensors", "photo.jpg"]),
    ],
)
def test_in_a_process_of_its_own(look, tmp_path, program, arguments):
    (tmp_path / "text.safetensors").write_text("These are words, and no checkpoint.\n" * 9)
    result = subprocess.run(
        [sys.executable, look.PROGRAMS / program, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(minicnn.__file__).parents[1]), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1), result.stderr
    assert look.files(tmp_path) == {"text.safetensors"}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("missing", ["minicnn", "numpy"])
def test_in_a_python_that_has_no_minicnn(look, tmp_path, program, missing):
    """As in a fresh clone: a line says what to run."""
    path = Path(program if "/" in program else f"alexnet/{program}")
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    result = subprocess.run(
        [sys.executable, look.EXAMPLES / path, "--help"], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(minicnn.__file__).parents[1])])},
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    clone = look.EXAMPLES.parent
    assert result.stderr == (
        f"{path.name}: {missing} is not installed in this Python: run {sys.executable} -m pip install "
        f'-e "{clone}[examples]" (README.md has more, under "With pip")\n'
    )
    assert (clone / "pyproject.toml").exists() and "## With pip" in (clone / "README.md").read_text()


def test_every_program_looks_for_minicnn_first(look):
    found = [path for path in look.EXAMPLES.glob("*/*.py") if "__main__" in path.read_text()]
    assert {path.relative_to(look.EXAMPLES).as_posix().removeprefix("alexnet/") for path in found} == set(PROGRAMS)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_is_no_mistake(look, lines):
    """As head: what is written sooner fails in a print, what is written last when the program ends."""
    lines = f"lambda: [print('x' * 70) for _ in range({lines})]"
    program = f"import sys; from support import options; sys.exit(options.command({lines}))"
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=look.PROGRAMS, stdout=writing, stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(minicnn.__file__).parents[1])},
    )  # fmt: skip
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")
