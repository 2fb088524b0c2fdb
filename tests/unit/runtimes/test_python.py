"""Models in Python: code that fails, dies, hangs or prints, and environments that are made once."""

import base64
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relens.errors import Broken
from relens.runtimes import ModelSpec, Python
from relens.runtimes.environments import interpreter_of

ONE = np.ones((1, 2), np.float32)


def spec_of(folder, code, **given):
    (folder / "own.py").write_text(f"import os, sys, time\nimport numpy as np\n{code}")
    (folder / "model.json").write_text(json.dumps({"entry": "own:run", **given}))
    return ModelSpec("python", folder / "model.json", "x", (2,), {"vector": "y"}, "fp32")


def load(folder, code, **given):
    return Python(folder / "cache").load(spec_of(folder, code, **given))


def refusal(run, code):
    with pytest.raises(Broken) as caught:
        run()
    assert caught.value.code == code
    return caught.value.message


def test_one_array_is_the_one_output(tmp_path):
    session = load(tmp_path, "def run(x): return x * 2")
    assert session.run(ONE)["vector"].tolist() == [[2, 2]]
    session.close()


def test_numbers_of_other_types_come_as_float32(tmp_path):
    session = load(tmp_path, "def run(x): return {'y': x.astype('i8') + 1, 'z': x}")
    vector = session.run(ONE)["vector"]
    assert vector.dtype == np.float32
    assert vector.tolist() == [[2, 2]]
    session.close()


def test_the_code_runs_in_a_process_that_is_not_handed_our_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("RELENS__CATALOG", "postgresql://secret")
    code = "def run(x): return x * 0 + [os.getpid(), sum(name.startswith('RELENS') for name in os.environ)]"
    session = load(tmp_path, code)
    pid, secrets = session.run(ONE)["vector"][0]
    assert pid != os.getpid()
    assert secrets == 0
    session.close()
    assert not Path(f"/proc/{int(pid)}").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no weights')", "no weights"),
        ("import not_there_at_all", "not_there_at_all"),
        ("def walk(x): return x", "run"),
        ("run = 3", "no function"),
        ("def run(x): raise ValueError('odd input')", "odd input, in own.py line 3"),
        ("def run(x): os._exit(3)", "exit code 3"),
        ("def run(x): return {'y': 'text'}", "text"),
        ("def run(x: return x", "SyntaxError"),
    ],
)
def test_code_that_does_not_run_is_not_loaded_and_says_why(tmp_path, code, said):
    assert said in refusal(lambda: load(tmp_path, code), "runtimes.load-failed")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"entry": "own"}, "module:function"),
        ({"entry": "../own:run"}, "module:function"),
        ({"entry": "own:run", "lock": "not-there.lock"}, "not-there.lock"),
        ({"entry": "own:run", "interpreter": "/no/python"}, "/no/python does not start"),
        ({"entry": "own:run", "interpreter": "/x", "lock": "y"}, "not both"),
        ({"entry": "own:run", "timeout_s": 0}, "timeouts"),
        ({"entry": "own:run", "requirements": "x"}, "unknown requirements"),
    ],
)
def test_a_model_file_that_says_nonsense_is_not_loaded(tmp_path, given, said):
    assert said in refusal(lambda: load(tmp_path, "def run(x): return x", **given), "runtimes.load-failed")


def test_a_picture_that_kills_the_process_is_broken_and_the_next_one_is_answered(tmp_path):
    code = "def run(x):\n    if x[0, 0] == 5:\n        print('out of paper', flush=True); os.abort()\n    return x"
    session = load(tmp_path, code)
    message = refusal(lambda: session.run(ONE * 5), "runtimes.run-failed")
    assert "SIGABRT" in message
    assert "out of paper" in message
    assert session.run(ONE)["vector"].tolist() == [[1, 1]]
    session.close()


def test_an_error_in_the_code_is_told_and_costs_no_process(tmp_path):
    code = "def run(x):\n    assert x[0, 0] != 5, 'five'\n    return x * 0 + os.getpid()"
    session = load(tmp_path, code)
    before = session.run(ONE)["vector"][0, 0]
    assert "five" in refusal(lambda: session.run(ONE * 5), "runtimes.run-failed")
    assert session.run(ONE)["vector"][0, 0] == before
    session.close()


def test_code_that_hangs_is_ended_and_started_again(tmp_path):
    code = "def run(x):\n    if x[0, 0] == 5:\n        time.sleep(60)\n    return x"
    session = load(tmp_path, code, timeout_s=0.5)
    assert "0.5 s" in refusal(lambda: session.run(ONE * 5), "runtimes.run-failed")
    assert session.run(ONE)["vector"].tolist() == [[1, 1]]
    session.close()


def test_code_that_prints_a_lot_is_not_held_up(tmp_path):
    session = load(tmp_path, "def run(x):\n    print('x' * 1_000_000)\n    return x")
    assert session.run(ONE)["vector"].tolist() == [[1, 1]]
    session.close()


def test_another_batch_than_the_inputs_is_broken(tmp_path):
    session = load(tmp_path, "def run(x): return x[:1]")
    assert "2 inputs gave" in refusal(lambda: session.run(np.ones((2, 2), np.float32)), "runtimes.run-failed")
    session.close()


def test_without_packages_it_is_our_own_interpreter(tmp_path):
    assert interpreter_of(b"", tmp_path) == Path(sys.executable)
    assert interpreter_of(b"# nothing\n\n", tmp_path) == Path(sys.executable)


def wheel(folder):
    """A package `paper` whose wheel also lets the environment see the numpy of these tests. Its line of a lock file."""
    near = str(Path(np.__file__).parents[1])
    files = {
        "paper.py": "SIZE = 210\n",
        "near.pth": f"{near}\n",
        "paper-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: paper\nVersion: 1.0\n",
        "paper-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}\n"
        for name, text in files.items()
    )
    files["paper-1.0.dist-info/RECORD"] = f"{record}paper-1.0.dist-info/RECORD,,\n"
    path = folder / "paper-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"paper==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder instead of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_packages_of_the_lock_file_are_in_an_environment_that_is_made_once(tmp_path, index):
    (tmp_path / "requirements.lock").write_text(wheel(index))
    code = "import paper\ndef run(x): return x * paper.SIZE"
    session = load(tmp_path, code, lock="requirements.lock")
    assert session.run(ONE)["vector"].tolist() == [[210, 210]]
    session.close()
    (made,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    stamp = (made / "COMPLETE").stat().st_mtime_ns
    load(tmp_path, code, lock="requirements.lock").close()
    assert (made / "COMPLETE").stat().st_mtime_ns == stamp


def test_a_package_whose_bytes_are_not_those_of_the_lock_file_is_not_installed(tmp_path, index):
    wheel(index)
    (tmp_path / "requirements.lock").write_text(f"paper==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Broken) as caught:
        load(tmp_path, "def run(x): return x", lock="requirements.lock")
    assert caught.value.code == "runtimes.no-environment"
    assert caught.value.hint
