"""Run folders: what is written stays whole, what is read is checked, and the state is true."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo import folders, runs
from zoo.api import ImageInput
from zoo.errors import RunError
from zoo.pipeline import Workspace
from zoo.pipeline.lineage import ancestors_of, lineage
from zoo.progress import Silent, reporting
from zoo.record import SCHEMA, Parent, PartRecord, Record, digest_of
from zoo.report.records import lineage_of
from zoo.runs import Run


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def record(kind: str = "pretrain", **changes: Any) -> Record:
    """Make the record of a run as pretraining or finetuning begins it."""
    part = PartRecord("digits", "plugzoo:images", "0.1.0", {})
    pretraining = kind == "pretrain"
    begun = Record(
        run="",
        kind=kind,
        status="",
        created="",
        dataset=part,
        backbone=dataclasses.replace(part, name="mlp", options={"widths": [8]}),
        objective=dataclasses.replace(part, name="denoise") if pretraining else None,
        head=None if pretraining else dataclasses.replace(part, name="linear"),
        input=[1, 8, 8],
        data_input=[3, 9, 7],
        classes=["zero", "ünö"],
        training={"epochs": 2},
        finetune=None if pretraining else {"labels": None},
        parent=None if pretraining else Parent("earlier", "0" * 64),
        seed=0,
        device="cpu",
        threads=1,
        versions={"torch": "2"},
        process={},
    )
    return dataclasses.replace(begun, **changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(root: Path) -> Run:
    """A run that is begun and that no process works on."""
    return runs.create(root, record())


def finished(root: Path, kind: str = "pretrain") -> Run:
    made = runs.create(root, record(kind))
    with made.recording():
        pass
    return made


def rewrite(run: Run, /, **changes: Any) -> None:
    """Change keys of run.json behind zoo's back."""
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def anything(run: Run) -> bool:
    return True


def any_of(kind: str) -> Callable[[Run], bool]:
    return lambda found: found.record.kind == kind


# --- create, save, load ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_reads_back_as_it_was_written(kind: str, root: Path) -> None:
    made = runs.create(root, record(kind))
    again = runs.load(made.folder)
    assert again == made
    assert made.folder.parent == root
    assert made.name == made.folder.name
    assert f"-{kind}-mlp-digits-" in made.name
    assert again.input == ImageInput(channels=1, height=8, width=8)
    assert again.data_input == ImageInput(channels=3, height=9, width=7)
    assert again.model == made.folder / "model.onnx"


def test_a_run_says_when_and_by_whom_it_was_begun(run: Run) -> None:
    assert run.record.status == "running"
    assert run.record.process["pid"] == os.getpid()
    assert run.record.created[-6] in "+-"  # ISO 8601 with offset
    assert run.record.schema == SCHEMA


def test_runs_of_one_second_have_names_of_their_own(root: Path) -> None:
    names = [runs.create(root, record()).name for _ in range(5)]
    assert len(set(names)) == 5


def test_keys_of_a_later_zoo_with_the_same_schema_are_kept(root: Path) -> None:
    made = finished(root, "finetune")
    sha256 = "0" * 64
    splits = {"test": {"examples": 5, "sha256": sha256, "mood": 1}}
    data = {"sha256": sha256, "trained": 3, "held_out": 1, "pretrained": 0, "splits": splits}
    content = json.loads((made.folder / "run.json").read_text())
    content |= {"mood": {"a": [1, {"b": None}]}, "data": {**data, "mood": "fine"}}
    for part in ("dataset", "backbone", "head", "parent"):
        content[part]["mood"] = part
    (made.folder / "run.json").write_text(json.dumps(content))
    again = runs.load(made.folder)
    reading = again.add_test("evaluate")
    again.finish_test(reading, accuracy=0.5, examples=2)
    written = json.loads((made.folder / "run.json").read_text())
    assert written["tests"][-1]["accuracy"] == 0.5
    known = {"equal": 0, "left_out": 0, "unknown": [], "contents": False, "resized": False}
    content["data"] |= known
    assert written == content | {"tests": written["tests"]}


def test_a_run_whose_record_cannot_be_written_leaves_no_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left on device"):
        runs.create(root, record())
    assert list(root.iterdir()) == []


# --- writing whole or not at all ------------------------------------------------------------


def disk_full(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def ctrl_c(handle: int) -> None:
    raise KeyboardInterrupt


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a longer old content")
    folders.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folders.write_atomic(tmp_path / "file", b"")
        assert os.umask(0o027) == 0o027  # and it is left as it was
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("failure", "error"), [(disk_full, OSError), (ctrl_c, KeyboardInterrupt)], ids=["full", "^C"]
)
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    failure: Callable[[int], None],
    error: type[BaseException],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = run.folder / "run.json"
    before = path.read_bytes()
    run.record.seed = 7
    monkeypatch.setattr(os, "fsync", failure)
    with pytest.raises(error) as caught:
        run.save()
    assert path.read_bytes() == before
    assert list(run.folder.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        # The name of the temporary file would tell the user nothing.
        assert caught.value.filename == str(path)
        assert str(caught.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{path}'"


@pytest.mark.parametrize("obstacle", ["a folder is in the way", "the folder is gone"])
def test_a_failed_write_names_the_file_that_was_meant(obstacle: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "weights.safetensors"
    if obstacle == "a folder is in the way":
        (path / "full").mkdir(parents=True)
    with pytest.raises(OSError, match=r"weights\.safetensors'$") as error:
        folders.write_atomic(path, b"data")
    assert error.value.filename == str(path)
    assert not list(tmp_path.rglob("*.partial"))


# --- states ---------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from zoo.runs import load

run = load(Path(sys.argv[1]))
with run.recording():
    run.append_metrics({"epoch": 1})
    print("recording", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(run: Run) -> Iterator[subprocess.Popen[str]]:
    """Another process that records the run until its stdin is closed."""
    command = [sys.executable, "-c", HOLD, str(run.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recording\n"
        yield process
        process.kill()


def state(run: Run) -> str:
    return runs.load(run.folder).state


def test_a_run_that_a_process_works_on_is_running_until_it_is_finished(
    run: Run, holder: subprocess.Popen[str]
) -> None:
    assert state(run) == "running"
    assert state(run) == "running"  # looking does not change it
    holder.communicate()
    assert holder.returncode == 0
    assert state(run) == "finished"
    assert runs.load(run.folder).record.seconds is not None


def test_a_run_whose_process_was_killed_is_dead(run: Run, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert runs.load(run.folder).record.status == "running"  # it could not say a word
    assert state(run) == "dead"
    assert state(run) == "dead"
    assert runs.load(run.folder).metrics() == [{"epoch": 1}]


def test_a_run_stopped_by_ctrl_c_is_interrupted(run: Run, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGINT)
    holder.wait()
    found = runs.load(run.folder)
    assert (found.state, found.record.error) == ("interrupted", None)
    assert found.record.seconds is not None


def test_a_run_that_raises_is_failed_and_says_why(run: Run) -> None:
    with pytest.raises(ValueError, match="boom"), run.recording():
        raise ValueError("boom")
    found = runs.load(run.folder)
    assert (found.state, found.record.error) == ("failed", "ValueError: boom")


def test_a_run_is_running_for_its_own_process_too(run: Run) -> None:
    with run.recording():
        assert run.state == "running"
        assert state(run) == "running"
    assert run.state == "finished"
    assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "run.json"]


def test_an_error_is_not_hidden_by_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(ValueError, match="the first error"), run.recording():
        raise ValueError("the first error")


def test_a_run_is_not_finished_before_it_is_written_down(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left on device"), run.recording():
        pass
    assert state(run) == "dead"


def test_a_run_begun_and_never_recorded_is_dead(run: Run) -> None:
    assert state(run) == "dead"


# --- find and every -------------------------------------------------------------------------


def test_there_are_no_runs_where_there_is_no_folder(root: Path) -> None:
    assert runs.every(root) == ([], [])


def test_runs_are_listed_oldest_first_and_other_folders_are_left_out(root: Path) -> None:
    made = [runs.create(root, record()) for _ in range(3)]
    (root / "notes").mkdir()
    (root / "file").write_text("x")
    shutil.move(made[0].folder, root / "zzz")  # what is older is said by the record
    found, faults = runs.every(root)
    # A renamed folder is a run by its new name; what it was is in its record.
    assert [each.name for each in found] == ["zzz", made[1].name, made[2].name]
    assert [each.record.run for each in found] == [each.record.run for each in made]
    assert faults == []


def test_latest_is_the_newest_run_that_fits(root: Path) -> None:
    old, pretraining = runs.create(root, record()), runs.create(root, record())
    finetuning = runs.create(root, record("finetune"))
    assert runs.find(root, "latest", any_of("pretrain"), "pretraining").name == pretraining.name
    assert runs.find(root, "latest", any_of("finetune"), "finetuning").name == finetuning.name
    assert old.name != pretraining.name


def test_newest_is_told_by_the_instant_not_by_the_clock_on_the_wall(root: Path) -> None:
    first, second = runs.create(root, record()), runs.create(root, record())
    # Twenty minutes apart, over the hour that comes twice when summer time ends.
    rewrite(first, created="2026-10-25T02:50:00.000000+02:00")
    rewrite(second, created="2026-10-25T02:10:00.000000+01:00")
    assert runs.find(root, "latest", anything, "run").name == second.name


def test_a_run_is_found_by_name_and_by_folder(root: Path, run: Run) -> None:
    assert runs.find(root, run.name, anything, "run") == run
    assert runs.find(root / "elsewhere", str(run.folder), anything, "run") == run


def test_latest_of_none_says_what_was_wanted(root: Path, run: Run) -> None:
    with pytest.raises(RunError) as error:
        runs.find(root, "latest", any_of("finetune"), "finished finetuning")
    wanted = f"There is no finished finetuning under '{root}'. See: zoo runs"
    assert str(error.value) == wanted


def test_an_unknown_run_is_answered_with_the_nearest(root: Path, run: Run) -> None:
    with pytest.raises(RunError) as error:
        runs.find(root, run.name[:-1], anything, "run")
    assert str(error.value) == (
        f"There is no run '{run.name[:-1]}' under '{root}', and no such folder."
        f" Did you mean '{run.name}'? See: zoo runs"
    )


@pytest.mark.parametrize(
    ("kind", "status", "what"),
    [
        ("pretrain", "finished", "finished pretraining"),
        ("pretrain", "running", "dead pretraining"),
        ("finetune", "failed", "failed finetuning"),
        ("finetune", "interrupted", "interrupted finetuning"),
    ],
)
def test_a_run_that_does_not_fit_says_what_it_is(
    kind: str, status: str, what: str, root: Path
) -> None:
    made = runs.create(root, record(kind))
    rewrite(made, status=status)
    with pytest.raises(RunError) as error:
        runs.find(root, made.name, lambda found: False, "finished something")
    wanted = f"Run '{made.name}' is a {what}; needed is a finished something. See: zoo runs"
    assert str(error.value) == wanted


def test_a_missing_and_a_foreign_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        runs.load(tmp_path / "absent")
    assert str(error.value) == f"There is no run folder '{tmp_path / 'absent'}'. See: zoo runs"
    with pytest.raises(RunError) as error:
        runs.load(tmp_path)
    wanted = f"'{tmp_path}' is not a run folder: it has no run.json. See: zoo runs"
    assert str(error.value) == wanted


# --- a corrupt run.json ---------------------------------------------------------------------


def assert_corrupt(root: Path, run: Run, said: str = "is corrupt: ") -> None:
    """Check that a run is refused by name, and that its neighbour is found all the same."""
    path = run.folder / "run.json"
    with pytest.raises(RunError) as error:
        runs.load(run.folder)
    message = str(error.value)
    assert message.startswith(f"'{path}' {said}")
    assert message.endswith((".", f"Type: ls -ld {path}"))
    neighbour = runs.create(root, record("finetune"))
    assert runs.every(root) == ([neighbour], [message])
    assert runs.find(root, "latest", anything, "run") == neighbour


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"[]", b"null", b"5", b'"text"', b"{}", b"\xff\xfe\x00", b"\0" * 300,
     b'{"schema": 1', b"[" * 100_000],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_what_is_no_record_is_corrupt(content: bytes, root: Path, run: Run) -> None:
    (run.folder / "run.json").write_bytes(content)
    assert_corrupt(root, run)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_record_is_corrupt(share: float, root: Path, run: Run) -> None:
    path = run.folder / "run.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_corrupt(root, run)


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "it is a pipe or a device, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a pipe or a device, not a file"),
        (lambda path: (path.touch(), os.truncate(path, 2**40)), "it is larger than"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["folder", "pipe", "device", "huge", "circle"],
)
def test_what_stands_in_place_of_the_record_is_told_of_that_run_alone(
    put: Callable[[Path], object], said: str, root: Path, run: Run
) -> None:
    (run.folder / "run.json").unlink()
    put(run.folder / "run.json")
    assert_corrupt(root, run, f"cannot be read: {said}")


@pytest.mark.parametrize("refused", ["run.json", ""], ids=["record", "folder"])
def test_what_may_not_be_read_is_told_of_that_run_alone(
    refused: str, root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user meets it: these tests may be run by one who may read everything."""
    neighbour = runs.create(root, record("finetune"))
    real = {name: getattr(os, name) for name in ("open", "lstat", "stat")}

    def refusing(name: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            inside = Path(os.fspath(path)) == run.folder / "run.json" if path != -1 else False
            if inside and (name == "open" or not refused):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real[name](path, *args, **kwargs)

        return call

    for name in real:
        monkeypatch.setattr(os, name, refusing(name))
    path = run.folder / refused if refused else run.folder
    told = f"'{path}' cannot be read: Permission denied. Type: ls -ld {path}"
    assert runs.every(root) == ([neighbour], [told])
    assert runs.find(root, "latest", anything, "run") == neighbour


@pytest.mark.parametrize(
    "key",
    [
        field.name
        for field in dataclasses.fields(Record)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    + ["schema"],
)
def test_a_record_without_a_key_is_corrupt_and_says_which(key: str, root: Path, run: Run) -> None:
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    assert_corrupt(root, run)
    with pytest.raises(RunError, match=rf"'{key}'"):
        runs.load(run.folder)


def test_a_part_of_the_wrong_form_is_told_in_words(run: Run) -> None:
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    content["parent"] = "R"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="is corrupt: a part has the wrong form") as caught:
        runs.load(run.folder)
    assert "attribute" not in str(caught.value)


PART = {"name": "mlp", "plugin": "p", "version": "1", "options": {}}
KNOWN = {
    "sha256": "0" * 64, "trained": 3, "held_out": 1, "pretrained": 0,
    "splits": {"train": {"examples": 4, "sha256": "0" * 64}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("run", value) for value in (None, 5)],
        *[("kind", value) for value in ("bake", None, [])],
        *[("status", value) for value in ("asleep", None, 5)],
        *[("created", value) for value in (None, 5)],
        *[("dataset", value) for value in (None, "digits", {"name": "digits"}, [])],
        *[("backbone", value) for value in (None, PART | {"name": 5}, PART | {"options": []})],
        *[("objective", value) for value in ("denoise", PART | {"options": []})],
        *[("head", value) for value in (5, {})],
        *[("seed", value) for value in (-1, 2**63, 10**400)],
        *[("seconds", value) for value in (-1, 10**400)],
        *[("data_input", [1, 10**12, 1]), ("input", [3, 10**6, 10**6])],
        *[("parent", {"run": "a", "weights_sha256": "b"})],  # of a pretraining
        *[
            ("metrics", {side: value})
            for side in ("train", "validation")
            for value in ({"loss": 1.0}, {"accuracy": 1.5}, {"total": "low"}, {"total": 10**400})
        ],
        *[
            ("metrics", {name: value})
            for name in ("train_examples", "kept_epoch")
            for value in ("5", -1, 2.5, True)
        ],
        *[("tests", [{"accuracy": value}]) for value in (1.01, -0.1, "1", 10**400)],
        *[("tests", [{"examples": value}]) for value in (0, 2.5, 10**30)],
        *[("tests", [{name: 5}]) for name in ("by", "when", "test_sha256")],
        *[("training", {"deep": value}) for value in (10**400, "\0", "\ud800")],
        *[("run", "a\0b"), ("classes", ["\udc00"]), ("versions", {"\ud800": "1"})],
        *[("process", {"pid": 10**400})],
        *[("finetune", {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[5]]]]]]]]]]]]]]]]]]]]]]]]]]})],
        *[("input", value) for value in (None, 5, [1, 8], ["1", "8", "8"], "188", [1, 8, 8.5])],
        *[("data_input", value) for value in (None, [1, 8], {"a": 1, "b": 2, "c": 3})],
        *[("classes", value) for value in (None, "ab", [1, 2])],
        *[("training", value) for value in (None, [], "x")],
        *[("finetune", value) for value in ([], "x")],
        *[("parent", value) for value in ("earlier", {"run": "earlier"}, [])],
        *[("seed", value) for value in (None, "0")],
        *[("threads", value) for value in (None, 0, 100_000, 10**30)],
        *[("versions", value) for value in (None, [])],
        *[("process", value) for value in (None, [])],
        *[("seconds", value) for value in ("long", [])],
        *[("metrics", value) for value in (None, [], "x")],
        *[("tests", value) for value in (None, {}, [1], "x")],
        *[("weights_sha256", value) for value in (5, [])],
        *[("error", value) for value in (5, [])],
        *[
            ("data", value)
            for value in (
                5,
                "x",
                {},
                KNOWN | {"trained": "3"},
                KNOWN | {"equal": 2**70},
                KNOWN | {"splits": [1]},
                KNOWN | {"splits": {"test": 5}},
                KNOWN | {"unknown": [1]},
                KNOWN | {"trained": -1},
            )
        ],
        *[("schema", value) for value in (None, "1", [])],
    ],
    ids=repr,
)
def test_a_record_of_the_wrong_form_is_corrupt(
    key: str, value: object, root: Path, run: Run
) -> None:
    rewrite(run, **{key: value})
    assert_corrupt(root, run)


def test_a_record_without_digests_or_with_them_is_sound(run: Run) -> None:
    assert runs.load(run.folder).record.data is None
    rewrite(run, data=KNOWN)
    data = runs.load(run.folder).record.data
    assert data is not None
    assert data.splits["train"].examples == 4
    assert (data.equal, data.left_out, data.unknown) == (0, 0, [])


def test_a_record_of_a_newer_zoo_says_how_to_get_it(run: Run) -> None:
    rewrite(run, schema=SCHEMA + 1, training="of another form")
    with pytest.raises(RunError) as error:
        runs.load(run.folder)
    assert str(error.value) == (
        f"'{run.folder / 'run.json'}' was written by a newer zoo (schema {SCHEMA + 1}; this"
        f" one reads {SCHEMA}). Type: pip install --upgrade plugzoo"
    )


# --- weights --------------------------------------------------------------------------------


@pytest.fixture
def weighted(run: Run) -> Run:
    """A run with weights: shared, not contiguous, of several types."""
    shared = torch.arange(6.0).reshape(2, 3)
    run.save_weights(
        {"encoder.a": shared, "encoder.b": shared, "decoder.c": shared.T, "n": torch.tensor(3)}
    )
    run.save()
    return run


def test_weights_read_back_as_they_were_saved(weighted: Run) -> None:
    found = runs.load(weighted.folder).load_weights()
    assert sorted(found) == ["decoder.c", "encoder.a", "encoder.b", "n"]
    torch.testing.assert_close(found["encoder.a"], torch.arange(6.0).reshape(2, 3), rtol=0, atol=0)
    torch.testing.assert_close(found["decoder.c"], found["encoder.b"].T, rtol=0, atol=0)
    assert found["n"].item() == 3
    assert found["n"].dtype == torch.int64


def test_the_same_weights_are_the_same_bytes(weighted: Run, root: Path) -> None:
    other = runs.create(root, record())
    # Given in another order, as another process may.
    other.save_weights(dict(sorted(weighted.load_weights().items(), reverse=True)))
    assert other.record.weights_sha256 == weighted.record.weights_sha256


def test_parameters_can_be_saved_while_they_are_trained(run: Run) -> None:
    layer = torch.nn.Linear(2, 1)
    run.save_weights(dict(layer.named_parameters()))
    assert torch.equal(run.load_weights()["weight"], layer.weight)


def flip(index: int) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[index] ^= 1
        return bytes(changed)

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": flip(0),
    "header": flip(20),
    "last byte": flip(-1),
    "truncated": lambda data: data[:-1],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights_are_refused(damage: Callable[[bytes], bytes], weighted: Run) -> None:
    path = weighted.folder / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError) as error:
        runs.load(weighted.folder).load_weights()
    assert str(error.value) == (
        f"'{path}' is corrupt: its SHA-256 is not the one that run.json records."
        " Train the run again."
    )


def test_missing_weights_are_said_to_be_missing(weighted: Run) -> None:
    path = weighted.folder / "weights.safetensors"
    path.unlink()
    with pytest.raises(RunError) as error:
        weighted.load_weights()
    wanted = f"Run '{weighted.name}' has no weights: '{path}' is missing. Train the run again."
    assert str(error.value) == wanted


def test_what_is_no_safetensors_file_is_refused(weighted: Run) -> None:
    path = weighted.folder / "weights.safetensors"
    data = b"\x80\x04pickled"
    path.write_bytes(data)
    weighted.record.weights_sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(RunError, match=r"weights\.safetensors' is no safetensors file: "):
        weighted.load_weights()


# --- metrics and readings of the test split -------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ['{"epoch": "2"}', '{"epoch": 0}', '{"lr": 0.1}', "[]", "5", '{"epoch": 2, "lr": "high"}',
     '{"epoch": 2, "lr": %s}' % ("9" * 400), '{"epoch": 2, "lr": NaN}', '{"epoch": 1e999}',
     '{"epoch": 2, "train": []}', '{"epoch": 2, "train": {"total": [1]}}', "[" * 100_000,
     '{"epoch": 2, "validation": {"total": null}}', '{"epoch": 2, "train": {"\\ud800": 1}}'],
    ids=lambda line: line[:30],
)  # fmt: skip
def test_epochs_are_read_up_to_a_line_that_is_none(line: str, run: Run) -> None:
    run.append_metrics({"epoch": 1, "validation": None})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n" + '{"epoch": 3}\n')
    assert run.metrics() == [{"epoch": 1, "validation": None}]


def test_metrics_that_are_no_file_are_none(run: Run) -> None:
    os.mkfifo(run.folder / "metrics.jsonl")
    assert run.metrics() == []


def test_metrics_are_lines_and_a_torn_last_one_is_left_out(run: Run) -> None:
    assert run.metrics() == []
    lines = [{"epoch": 1, "loss": 0.5, "über": "ß"}, {"epoch": 2, "loss": 0.25}]
    for line in lines:
        run.append_metrics(line)
    path = run.folder / "metrics.jsonl"
    whole = path.read_bytes()
    assert run.metrics() == lines
    for cut in range(len(json.dumps(lines[0])) + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert run.metrics() == lines[:1]


@pytest.mark.parametrize("torn", [b'{"epoch": 2, "l', b"\xc3", b"\0\0\0\0", b"{"])
def test_whatever_the_torn_line_holds_the_others_are_read(torn: bytes, run: Run) -> None:
    run.append_metrics({"epoch": 1})
    with (run.folder / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert run.metrics() == [{"epoch": 1}]


def test_a_run_that_may_only_be_read_is_measured_on_and_a_note_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finished(root, "finetune")
    before = (made.folder / "run.json").read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(runs, "write_atomic", refuse)
    told = Heard()
    with reporting(told):
        made.finish_test(made.add_test("validate"), accuracy=0.5, examples=2)
    assert told.said == [
        f"'{made.folder}' may only be read: that its test split is read now is not written down"
        " there"
    ]
    assert made.test_readings() == {}
    with pytest.raises(RunError, match=r"may only be read, so no evaluation .* Type: cp -r"):
        made.add_test("evaluate")
    assert (made.folder / "run.json").read_bytes() == before


def test_readings_of_the_test_split_add_up(root: Path) -> None:
    made = finished(root, "finetune")
    seen_before = runs.load(made.folder)
    made.add_test("evaluate", accuracy=0.5, examples=10)
    seen_before.add_test("export", accuracy=0.25, examples=10)
    found = runs.load(made.folder).record.tests
    assert [{k: v for k, v in each.items() if k != "when"} for each in found] == [
        {"by": "evaluate", "accuracy": 0.5, "examples": 10},
        {"by": "export", "accuracy": 0.25, "examples": 10},
    ]
    assert found[0]["when"] < found[1]["when"]


READ = """
import sys
from pathlib import Path
from zoo.runs import load

run = load(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for reading in range(8):
    run.add_test(f"{sys.argv[2]}-{reading}")
"""


def test_readings_of_several_processes_are_all_kept(root: Path) -> None:
    made = finished(root, "finetune")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READ, str(made.folder), str(number)], text=True, **pipes
        )
        for number in range(4)
    ]
    # All have loaded the record before the first one writes.
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    for reader in readers:
        reader.communicate()
        assert reader.returncode == 0
    found = [reading["by"] for reading in runs.load(made.folder).record.tests]
    assert sorted(found) == sorted(f"{number}-{n}" for number in range(4) for n in range(8))
    assert runs.load(made.folder).state == "finished"


# --- lineage --------------------------------------------------------------------------------


def begun_from(root: Path, parent: Run, **changes: Any) -> Run:
    """Make a finished finetuning of a run, as finetuning records it."""
    kept = Parent(parent.name, str(parent.record.weights_sha256), "", digest_of(parent.record))
    made = runs.create(root, record("finetune", parent=kept, training={"seed": 0}, **changes))
    with made.recording():
        made.save_weights({"weight": torch.ones(2)})
    return made


@pytest.fixture
def pretrained(root: Path) -> Run:
    made = runs.create(root, record(training={"seed": 0}))
    with made.recording():
        made.save_weights({"weight": torch.zeros(2)})
    return made


def test_a_run_that_came_of_itself_is_told_and_not_followed_for_ever(
    root: Path, pretrained: Run
) -> None:
    one = begun_from(root, pretrained)
    two = begun_from(root, one)
    itself, another = (
        {"run": run.name, "weights_sha256": run.record.weights_sha256} for run in (one, two)
    )
    rewrite(one, parent=itself)
    [step] = lineage_of(runs.load(one.folder), root)
    assert step.record is None
    assert step.fault == "it came of itself: its lineage is a circle"
    rewrite(one, parent=another)
    first, second = lineage_of(runs.load(one.folder), root)
    assert (first.fault, first.run) == ("", two.name)
    assert second.fault == "it came of itself: its lineage is a circle"


def test_a_circle_ends_what_follows_a_lineage(
    root: Path, pretrained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of each other's kind such runs would have to be, their records forbid today."""
    one = begun_from(root, pretrained)
    monkeypatch.setattr("zoo.pipeline.lineage.parent_of", lambda run, workspace: one)
    with pytest.raises(RunError, match=r"Its lineage is a circle: run '.*' came of itself"):
        list(ancestors_of(pretrained, Workspace(runs=root)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: rewrite(run, seed=99), "The record of run '{}' was changed since run"),
        (lambda run: rewrite(run, seed=99, training={"seed": 99}), "'{}' was changed since run"),
        (lambda run: rewrite(run, threads=3), "The record of run '{}' was changed since run"),
        (lambda run: rewrite(run, weights_sha256="0" * 64), "'{}', whose weights are others now."),
        (lambda run: os.truncate(run.folder / "weights.safetensors", 9), "{}/weights.safetensors'"),
        (lambda run: shutil.rmtree(run.folder), "There is no run '{}'"),
    ],
    ids=["seed", "seeds", "threads", "digest", "weights", "gone"],
)
def test_a_lineage_says_what_could_not_be_checked(
    change: Callable[[Run], object], said: str, root: Path, pretrained: Run
) -> None:
    made = begun_from(root, pretrained)
    workspace, told = Workspace(runs=root), Heard()
    with reporting(told):
        whole = lineage(made, workspace)
        assert [each["run"] for each in whole["parents"]] == [pretrained.name]
        assert "unknown" not in whole
        assert told.said == []
        change(pretrained)
        found = lineage(made, workspace)
    assert found["parents"] == []
    assert found["unknown"] == f"what run '{made.name}' came of could not be checked"
    [note] = told.said
    assert note.startswith(f"{found['unknown']}, and is left out of its proof: ")
    assert said.format(pretrained.name) in note


def test_a_report_leaves_out_a_parent_whose_record_was_changed(root: Path, pretrained: Run) -> None:
    made = begun_from(root, pretrained)
    [step] = lineage_of(made, root)
    assert (step.fault, step.record) == ("", pretrained.record)
    rewrite(pretrained, seed=99, training={"seed": 99})
    [step] = lineage_of(made, root)
    assert (step.fault, step.record) == ("its record was changed since", None)
