"""Misuse of everything public: settings that no function may take, and wild calls."""

import inspect
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import fuzz_calls
import numpy as np
import pytest

INF, NAN = float("inf"), float("nan")
NO_NUMBER = ("1", None, [1.0], 1j, {}, object(), np.ones(2))
NO_FLAG = ("yes", 2, 0.5, [], np.ones(2))
ABSURD = {  # what no function takes for an argument of this name
    **dict.fromkeys(
        "lr eps weight_decay min_lr threshold rtol atol".split(), (-1, -INF, INF, NAN, 10**400, *NO_NUMBER)
    ),
    **dict.fromkeys("negative_slope k alpha beta ddof".split(), (INF, NAN, -(10**400), *NO_NUMBER)),
    **dict.fromkeys("low high value bias_init".split(), (1j, "1", [1.0], {})),
    **dict.fromkeys("stride dilation kernel_size".split(), (0, -1, 1.5, "2", (1,), (1, 2, 3), (1, 0), {}, np.ones(2))),
    **dict.fromkeys("groups n step_size batch_size short_side size".split(), (0, -1, 1.5, 2**70, *NO_NUMBER)),
    **dict.fromkeys(
        "in_channels out_channels in_features out_features num_features".split(), (0, -1, 1.5, 10**18, *NO_NUMBER)
    ),
    **dict.fromkeys("warmup_steps patience full_jacobian num_workers seed".split(), (-1, 1.5, 2**70, *NO_NUMBER)),
    **dict.fromkeys(
        "ceil_mode count_include_pad training keepdims requires_grad create_graph strict verify".split(), NO_FLAG
    ),
    **dict.fromkeys("nesterov paper_update shuffle drop_last retain_graph train enabled".split(), NO_FLAG),
    "momentum": (-0.1, NAN, INF, *NO_NUMBER),
    "p": (-0.1, 1.1, NAN, *NO_NUMBER),
    "label_smoothing": (-0.1, 1.1, NAN, *NO_NUMBER),
    "ignore_index": (1.5, "1", [1]),
    "padding": (-1, 1.5, "valid", (1, 2, 3), ((0, 1), (1, -1)), {}, None),
    "output_padding": (-1, 99, 1.5, "1", (1, 2, 3), None),
    "output_size": (0, -1, 2.5, 10**9, "1", None, (1, 2, 3)),
    "axis": (99, -99, 1.5, "0", {}, np.ones(2)),
    "reduction": ("avg", None, 1, ["mean"]),
    "dtype": ("float33", complex, object, "a", 3, [], "U3"),
    "device": ("cuda", "gpu:x", 3, "", ["cpu"], np.ones(2)),
    "max_norm": (0, -1, NAN, "1", None, [1.0]),
    "total_steps": (-1, 0, 1.5, *NO_NUMBER),
    "factor": (0, 1, -1, NAN, *NO_NUMBER),
    "gamma": (-1, NAN, "1", None, {}),
    "std": (-1, NAN, "1", {}, 1j),
    "max_steps": (-1,),
    "name": ("cuda9", 3, ["numpy"]),
}


def calls():
    """(function, its arguments by name) that works, for each public function and method."""
    things = list(fuzz_calls.functions())
    for make, names in fuzz_calls.instances():
        things += [(make, name) for name in dict.fromkeys(names)]
    for i, thing in enumerate(things):
        rng = random.Random(i)
        for _ in range(300):
            function = getattr(thing[0](rng), thing[1]) if isinstance(thing, tuple) else thing
            try:
                signature = inspect.signature(function)
            except (TypeError, ValueError):
                break
            parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
            if any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters):
                break
            if not ABSURD.keys() & signature.parameters.keys():
                break
            left = [
                p.name
                for p in parameters
                if p.default is not p.empty and (p.name not in fuzz_calls.RIGHT or rng.random() < 0.7)
            ]
            given = {
                p.name: fuzz_calls.RIGHT[p.name](rng)
                for p in parameters
                if p.name in fuzz_calls.RIGHT and p.name not in left
            }
            try:
                function(**given)
            except Exception:
                continue
            yield function, signature, given
            break


FITS = {  # (function, argument): accepted, or a plain answer
    ("is_available", "device"), ("rows_before", "n"), ("register_buffer", "name"), ("Softmax", "axis"), ("LogSoftmax", "axis"),
}  # fmt: skip


def test_settings_that_nothing_takes(tmp_path, monkeypatch, threads):
    """Each is refused in one line, which names it or the function, and says what was given."""
    monkeypatch.chdir(tmp_path)
    wrong, tried, functions = [], 0, set()
    for function, signature, given in calls():
        for name in ABSURD.keys() & signature.parameters.keys():
            for value in () if (function.__name__, name) in FITS else ABSURD[name]:
                tried += 1
                functions.add(getattr(function, "__qualname__", repr(function)))
                what = f"{getattr(function, '__qualname__', function)}({name}={value!r})"
                default = signature.parameters[name].default
                if value is default or (value is None and "None" in str(signature.parameters[name].annotation)):
                    continue
                try:
                    function(**{**given, name: value})
                except Exception as error:
                    words = fuzz_calls.words_for(function, signature)
                    fault = fuzz_calls.fault_of(error, words, [value, *given.values()])
                    if fault or isinstance(error, MemoryError):
                        wrong.append(f"{what}: {fault}: {type(error).__name__}: {error}")
                else:
                    wrong.append(f"{what} is accepted")
    assert not wrong, "\n".join(wrong)
    assert tried > 1000 and len(functions) > 60


@pytest.mark.slow
def test_wild_calls():
    """No crash, no hang, nothing but results and refusals of minicnn's own; see fuzz_calls."""
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda seed: list(fuzz_calls.supervise(seed, 10_000)), range(2))
    outcomes = list(chain(*halves))
    kinds = [kind for _, kind, *_ in outcomes]
    assert len(kinds) == 20_000 and kinds.count("works") > 8_000 and kinds.count("refused") > 8_000
    wrong = [outcome for outcome in outcomes if outcome[1] not in ("works", "refused", "MemoryError")]
    assert not wrong, "\n".join(map(str, wrong))
