"""The files of a run on a GPU, gpu.md, gpu.json, gpu.png and what its programs said (gpu-tests.txt,
gpu-sanitizer.txt, gpu-training.txt), and of a prediction without one, gpu-predicted.md and
gpu-predicted.json."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .gpu import OWN_ROUNDINGS, failures, one_line
from .gpu_launches import ACHIEVABLE, LAUNCHED, SHORTEST
from .instructions import CLOCK, PROCESSORS
from .report import (
    MEDIANS,
    WAYS,
    bars,
    by_contender,
    described,
    median,
    number,
    page,
    publish,
    shown,
    speeds,
    steps,
    table,
    to_json,
)  # fmt: skip
from .sections import CAPTURED, OURS, Result
from .turns import BenchmarkError, spread

# What the host really took, on the first GPU that was there, by results/gpu.md.
OF_A_GPU = (
    "Beside an H200 (Intel Xeon, 16 cores; commit c004f91, [gpu.md](gpu.md)) the host took 7.8 to 8.0 ms for a step of "
    "about 110 launches. On 2 cores of an AMD EPYC, with a device that only pretended to be one, the same commit took "
    "2.81 ms, and 1.83 since the host does less. A GPU as fast as that in TF32 would have waited for that host."
)
# launches that a training step may take: columns are made five times, once for each convolution
MOST = 93


def write(results: Result, folder: Path) -> None:
    """Write each file by itself, the figures first, so that as many as possible are there. A
    BenchmarkError names those that could not be written. Outputs of programs that an earlier run
    has left and this one has not run are removed."""
    tests, training = results.get("tests", {}), results.get("training", {})
    said = {
        "gpu-tests.txt": [tests["pytest"]] if "pytest" in tests else [],
        "gpu-sanitizer.txt": [
            {"output": f"== {name}\n{run['output']}"} for name, run in sorted(tests.get("sanitizer", {}).items())
        ],
        "gpu-training.txt": [training] if training else [],
    }
    files = {"gpu.json": lambda: to_json(_without_output(results)), "gpu.md": lambda: markdown(results)}
    files |= {name: partial("\n".join, [run["output"] for run in runs]) for name, runs in said.items() if runs}
    files["gpu.png"] = lambda: draw(results)
    unwritten = []
    for name, make in files.items():
        try:
            publish(folder, {name: make})
        except Exception as error:
            unwritten.append(f"{name} was not written ({one_line(error)})")
    for name in said.keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    if unwritten:
        raise BenchmarkError(", ".join(unwritten))


def _without_output(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_output(part) for key, part in value.items() if key != "output"}
    return value


def write_prediction(prediction: Result, folder: Path) -> None:
    publish(folder, {
        "gpu-predicted.md": lambda: page(["# What a training step will take on an H100", *_predicted(prediction)]),
        "gpu-predicted.json": lambda: to_json(prediction),
    })  # fmt: skip


def markdown(results: Result) -> str:
    parts = {"steps": _steps, "training": _training, "kernels": _kernels, "tests": _tests, "launches": launches}
    blocks = ["# minicnn on a GPU", *_conditions(results)]
    for name, part in parts.items():
        blocks += part(results[name]) if results.get(name) else []
    return page(blocks)


def _conditions(results: Result) -> Iterator[str]:
    m, gpu = results["machine"], results["gpu"]
    cuda, driver = (f"{gpu[name] // 1000}.{gpu[name] % 1000 // 10}" for name in ("cuda", "driver"))
    programs = f"CuPy {gpu['cupy']} with CUDA {cuda}", f"PyTorch {m['pytorch'] or '(not installed)'}"
    yield (
        f"{gpu['described']}; driver for CUDA {driver}. {described(m, *programs)} All of it took "
        f"{results['seconds']:.0f} s."
    )
    wrong = failures(results)
    yield "\n".join(["**Not as it should be:**", *(f"- {line}" for line in wrong)]) if wrong else "Nothing failed."
    yield table(["part", "limit, s", "took, s", ""], *(
        [e["part"], f"{e['allowed']:.0f}", f"{e['seconds']:.0f}", f"**{e['problem']}**" if e["problem"] else "done"]
        for e in results["parts"]
    ))  # fmt: skip


def _tests(r: Result) -> Iterator[str]:
    yield "## Tests on the GPU"
    runs = {"pytest -m gpu": r["pytest"]} if "pytest" in r else {}
    runs |= {f"compute-sanitizer, {name}": run for name, run in sorted(r["sanitizer"].items())}
    yield table(["", "", "s", "last line"], *(
        [name, _verdict(run), f"{run['seconds']:.0f}", run["summary"]] for name, run in runs.items()
    ))  # fmt: skip
    if not r["sanitizer"]:
        yield "compute-sanitizer is not on the path."
    failed = [
        line for run in runs.values() for line in run["output"].splitlines() if line.startswith(("FAILED", "ERROR "))
    ]
    if failed:
        yield "\n".join(["```", *failed, "```"])


def _verdict(run: Result) -> str:
    return {0: "passed", None: "**not done**"}.get(run["status"], "**FAILED**")


def _training(r: Result) -> Iterator[str]:
    yield "## The program"
    yield f"`examples/alexnet/train.py --device gpu`: {_verdict(r)} in {r['seconds']:.0f} s. It said:"
    yield "\n".join(["```", *r["output"].replace("\r", "\n").strip().splitlines()[-24:], "```"])


def _steps(r: Result) -> Iterator[str]:
    # a part that ran late may lack it
    measured = [m for m in r["measured"] if "step" in m]
    keys = ["network", "precision", "batch"]
    yield "## Training step and inference"
    if r["agreement"]:
        yield (
            "Checked first, on two images and without dropout: how far the others' loss and gradients are from "
            f"{OURS}'s, relative to their size. In TF32 a gradient may be {OWN_ROUNDINGS} times as far as rounding "
            f"takes {OURS}'s own: its distance in TF32 from that in fp32."
        )
        yield table(["", "loss", "the furthest gradient", "of", f"{OURS}'s own rounding", ""], *(
            [what, f"{a['loss']:.0e}", f"{a['gradient']:.0e}", a["parameter"], f"{a['rounding']:.0e}",
             f"**not the same: {', '.join(a['wrong'])}**" if a["wrong"] else "the same"]
            for what, a in r["agreement"].items()
        ))  # fmt: skip
    yield (
        "Each contender has a process of its own, with the same weights and images, which are on the GPU already, "
        f"and one turn in every round. **{CAPTURED}**: with minicnn.Captured, which asks for the two passes of a step "
        "as one CUDA graph. **PyTorch** as it comes; **PyTorch best** with channels_last, cuDNN's search for "
        "the fastest way and SGD(fused=True); **PyTorch compiled** is that through torch.compile. Times are between "
        f"two events on the GPU, after a warm-up. {MEDIANS}"
    )
    yield from (f"**{problem}.**" for problem in r["problems"])
    yield from steps(measured, keys)
    yield (
        "The most memory that the allocators have taken, in MiB; and milliseconds that the host takes to ask for a "
        "step / that the GPU takes to do it. While the first is less, the host is ahead and the GPU never idle."
    )
    yield by_contender(measured, keys, **{"MiB": _reserved, "host / GPU": _waits})


def _reserved(m: Result, name: str) -> str:
    return number(m["reserved"][name]) if name in m.get("reserved", {}) else "–"


def _waits(m: Result, name: str) -> str:
    waits = m.get("waits", {}).get(name, ())
    return " / ".join(number(seconds * 1e3) for seconds in waits) or "–"


def _kernels(r: Result) -> Iterator[str]:
    yield "## Each launch of a training step"
    yield from (f"**{problem}.**" for problem in r.get("problems", []))
    entries = r["launches"]
    if not entries:
        yield "None was measured."
        return
    peaks, differ = r["peaks"], r.get("differ", len(entries))
    if len(entries) < differ:
        yield f"**Of {differ} that differ only the first {len(entries)} were measured: the sums lack the others.**"
    precisions = max((list(e["measured"]) for e in entries), key=len)
    # the prediction is for one card only
    beside = [name for name in ("floor", "predicted") if name in entries[0]]
    rows, sums = [], {p: Counter[str]() for p in precisions}
    for e in entries:
        for precision, seconds in e["measured"].items():
            middle, bound = median(seconds), e["floor"][precision]["bound"]
            rate = f"{e['bytes'] / middle / 1e9:,.0f} GB/s" if bound == "memory" else ""
            rate = rate or f"{e['operations'] / middle / 1e12:.3g} TFLOP/s"
            rows.append([
                f"{e['name']}, {precision}" if e["kind"] == "product" else e["name"], e["shape"], str(e["times"]),
                *_work(e), *(number(e[name][precision]["seconds"] * 1e6) for name in beside), bound,
                shown(spread(seconds), 1e6), rate, f"{e['floor'][precision]['seconds'] / middle:.0%}",
            ])  # fmt: skip
        for p, total in sums.items():
            used = p if p in e["measured"] else "fp32"
            total["measured"] += median(e["measured"][used]) * e["times"]
            for name in beside:
                total[name] += e[name][used]["seconds"] * e["times"]
    yield (
        f"The {r['network']} network, batch {r['batch']}. A copy from device to device moves "
        f"{number(peaks['bandwidth'] / 1e9)} GB/s, a large product does {number(peaks['fp32'] / 1e12)} TFLOP/s in fp32 "
        f"and {number(peaks['tf32'] / 1e12)} in TF32. The floor of a launch is what its bytes (each number of its "
        "arrays read or written once) or its operations take at those rates. Each was launched by itself, with the "
        "arrays that it had in the step, after the cache had been filled with something else; medians with quartiles, "
        f"of which {number(peaks['mark'] * 1e6)} µs are the clock's own. CuPy's own launches are not in it."
    )
    yield table(["a step, ms", "measured", *beside], *(
        [p, *(number(total[name] * 1e3) for name in ("measured", *beside))] for p, total in sums.items()
    ))  # fmt: skip
    yield table(
        ["launch", "arrays", "times", "MB", "GFLOP", *(f"{name}, µs" for name in beside), "bound by", "measured, µs",
         "rate", "floor / measured"], *rows,
    )  # fmt: skip


# ----------------------------------------------------------------------------- what a step launches
def launches(r: Result) -> Iterator[str]:
    kinds: Counter[str] = Counter()
    for entry in r["launches"]:
        kinds[entry["kind"]] += entry["times"]
    yield "## What a training step launches"
    yield (
        f"One step of examples/alexnet/train.py, the {r['network']} network, batch {r['batch']}, recorded through the "
        f"tests' stand-in for CuPy: {sum(kinds[kind] for kind in LAUNCHED)} launches (at most {MOST} are allowed): "
        f"{', '.join(f'{kinds[kind]} {what}' for kind, what in LAUNCHED.items())}; {kinds['transfer']} transfers; "
        f"waits for the copy of the batch before the last: {kinds['wait']}."
    )
    rows, head = [], ["launch", "arrays", "times", "MB", "GFLOP"]
    foreseen = [p for p in ("fp32", "tf32") if p in r.get("totals", {})]
    if counted := any("issued" in e for e in r["launches"]):
        head.append("instructions, µs")
    for e in r["launches"]:
        cells = [number(e["issued"]["seconds"] * 1e6) if "issued" in e else "–"] * counted
        cells += [f"{number(e[p]['seconds'] * 1e6)} ({e[p]['bound']})" if p in e else "–" for p in foreseen]
        rows.append([e["name"], e["shape"] or e["kind"], str(e["times"]), *_work(e), *cells])
    yield table([*head, *(f"{p}, µs (bound by)" for p in foreseen)], *rows)


def _work(entry: Result) -> list[str]:
    return [number(entry["bytes"] / 1e6), number(entry["operations"] / 1e9) if entry["operations"] else "–"]


def _predicted(r: Result) -> Iterator[str]:
    known, assumed = r["known"], r["expected"]
    fp32, tf32 = (r["totals"][precision] for precision in ("fp32", "tf32"))
    issuing = "" if r["uncounted"] else "the instructions of minicnn's kernels, "
    yield (
        f"Nothing here was measured{' but the host' if r['host'] else ''}. The launches are those of the program, "
        "recorded as below; what each takes is computed: the longest of its bytes (each number of its arrays read or "
        f"written once), its floating-point operations (roughly, for kernels), {issuing}and "
        f"{SHORTEST * 1e6:.0f} µs, the least from one launch to the next. "
        "Transfers go on beside it. "
        f"The card, {known['name']}, has {known['bandwidth'] / 1e12:.3g} TB/s, {known['fp32'] / 1e12:.3g} TFLOP/s in "
        f"fp32 and {known['tf32'] / 1e12:.3g} in TF32 (dense) by its data sheet. Assumed is that "
        f"{ACHIEVABLE['bandwidth']:.0%}, {ACHIEVABLE['fp32']:.0%} and {ACHIEVABLE['tf32']:.0%} of that are reached "
        f"({assumed['bandwidth'] / 1e12:.3g} TB/s, {assumed['fp32'] / 1e12:.3g} and {assumed['tf32'] / 1e12:.3g} "
        "TFLOP/s), and that the host is ahead of the GPU all the time. `python -m benchmarks gpu` measures the same "
        "launches on a GPU."
    )
    yield _counted(r)
    yield table(
        ["network", "batch", "precision", "GPU, ms", "host, ms", "host, captured", "images/s"],
        *(
            [
                r["network"], str(r["batch"]), name, number(total["seconds"] * 1e3),
                *(number(r[how] * 1e3) if r[how] else "–" for how in ("host", "captured")), number(total["images/s"]),
            ]
            for name, total in r["totals"].items()
        ),
    )  # fmt: skip
    if r["host"]:
        count = sum(e["times"] for e in r["launches"] if e["kind"] in LAUNCHED)
        m = r["machine"]
        yield (
            "The host's time was measured: what Python takes to ask for a step through CuPy as it is, on the tests' "
            f"rig on {m['processor']} ({m['cores']} cores), {number(r['host'] / count * 1e6)} µs for each launch. What "
            f"the driver takes is not in it. Captured: with minicnn.Captured, which asks for all but the update as one "
            f"CUDA graph. {OF_A_GPU} While the host's time is less than the GPU's, the host is "
            "ahead and the GPU never idle; a step of a small batch takes as long as the host does."
        )
    shares: dict[str, Counter[str]] = {}
    for e in r["launches"]:
        for precision in r["totals"]:
            if precision in e:
                shares.setdefault(e["name"], Counter())[precision] += e[precision]["seconds"] * e["times"]
    yield "By name, milliseconds a step:"
    ordered = sorted(shares.items(), key=lambda item: -item[1]["tf32"])
    yield table(
        ["launch", "fp32", "TF32"],
        *([name, *(number(share[p] * 1e3) for p in ("fp32", "tf32"))] for name, share in ordered),
        ["sum", number(fp32["seconds"] * 1e3), number(tf32["seconds"] * 1e3)],
    )
    yield from launches(r)


def _counted(r: Result) -> str:
    if r["uncounted"]:
        return f"**Without the machine instructions of minicnn's kernels: {r['uncounted']}.**"
    nearest = max(
        (e for e in r["launches"] if "issued" in e and e["fp32"]["bound"] == "memory"),
        key=lambda e: e["issued"]["seconds"] / e["fp32"]["seconds"],
    )
    bound = dict.fromkeys(e["name"] for e in r["launches"] if e.get("fp32", {}).get("bound") == "instructions")
    return (
        "The instructions are those of the machine code that NVRTC makes for sm_90, by nvdisasm, loop by loop, each "
        "warp going the longest way. A multiprocessor begins four warps' instructions in a clock, of integers two, "
        f"of special functions one in two clocks; {PROCESSORS} of them do at {CLOCK / 1e9:.3f} GHz (the rates are by "
        "the CUDA C++ Programming Guide; by the data sheet's TFLOP/s the clock is 1.98 at most). "
        f"{'Bound by them: ' + ', '.join(bound) if bound else 'No launch is bound by them'}. Of those that memory "
        f"holds up, {nearest['name']} ({nearest['shape']}) is the nearest to that, with "
        f"{nearest['issued']['seconds'] / nearest['fp32']['seconds']:.0%} of its time."
    )


# ---------------------------------------------------------------------------------------- the chart
def draw(results: Result) -> Figure:
    """Images a second by batch, and how near to its floor each launch is that takes a hundredth of
    the step or more."""
    measured = [m for m in results.get("steps", {}).get("measured", []) if "step" in m]
    kernels = results.get("kernels", {}).get("launches", [])
    times = [median(e["measured"]["fp32"]) for e in kernels]
    kernels = [e for e, t in zip(kernels, times, strict=True) if 100 * t * e["times"] >= sum(times)]
    ways = [(way, p) for way in WAYS for p in dict.fromkeys(m["precision"] for m in measured)]
    figure = Figure(figsize=(13, 1 + 4 * -(-len(ways) // 2) + 0.25 * len(kernels)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1 + 2 * len(ways), 1 + 0.25 * len(kernels)])
    for i, (way, p) in enumerate(ways):
        axes = upper.add_subplot(-(-len(ways) // 2), 2, i + 1)
        groups = speeds((m for m in measured if m["precision"] == p), way)
        bars(axes, f"{way}, {p}, by batch and network", "images a second", groups)
        if not i:
            upper.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    if kernels:
        axes = lower.add_subplot()
        lengths = [100 * e["floor"]["fp32"]["seconds"] / median(e["measured"]["fp32"]) for e in kernels]
        axes.barh(range(len(kernels)), lengths, color="#0b6e99")
        axes.set_yticks(range(len(kernels)), [f"{e['name']}  {e['shape']}" for e in kernels], fontsize=7)
        axes.set_ylim(len(kernels) - 0.5, -0.5)
        axes.axvline(70, color="black", linewidth=1)
        axes.set_title("floor / measured in per cent, fp32, one launch at a time", fontsize=11)
    figure.suptitle(f"minicnn on {results['gpu']['name']}")
    return figure
