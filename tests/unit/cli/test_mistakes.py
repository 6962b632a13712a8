"""A newcomer's mistakes: each is one line that says what, where, seen and wanted, and nothing is lost by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.cli.command import main
from tests.unit.cli.mistaken_place import furnish

TRAIN = "train mae ROOT --out OUT --preset tiny "
# Command (ROOT is an indexed folder, OUT one that is not there yet), and how the line begins.
MISTAKES = {
    # verbs and options
    "helth": "unknown verb 'helth'; did you mean 'healthcheck'?",
    "bench": "bench is a family of verbs; wanted one of bench decode, ",
    "serv ROOT": "unknown verb 'serv'; did you mean 'serve'?",
    "train mea ROOT": "unknown recipe 'mea'; did you mean 'mae'?",
    "train mae": "train mae: missing ROOT (Folder that the servers serve: its manifest says which videos there are)",
    "serve": "serve: missing ROOT (Folder of videos, made by ",
    "index": "index: missing ROOT (",
    "chunk plain": "chunk: --out is missing; wanted the root to write",
    "keys": "keys: missing FOLDER (Where the two files go",
    "eval a b": "eval: missing --data.kind (one of ego4d, egomcq, ",
    "serve ROOT extra": "serve: 'extra' is more than is taken; wanted ROOT",
    "serve ROOT --bindd x": "serve: there is no option --bindd; did you mean --bind?",
    "index ROOT --jobs": "index: --jobs has no value, wanted a whole number",
    TRAIN + "--batch-clip 8": "train mae: there is no option --batch-clip; did you mean --batch-clips?",
    # types and choices
    "serve ROOT --workers two": "serve: --workers is 'two', wanted a whole number",
    "chunk plain --out OUT --jobs 1.5": "chunk: --jobs is '1.5', wanted a whole number",
    TRAIN + "--steps 1.5": "train mae: --steps is '1.5', wanted a whole number",
    TRAIN + "--lr abc": "train mae: --lr is 'abc', wanted a number",
    TRAIN + "--poison maybe": "train mae: --poison is 'maybe', wanted one of raise, skip, replace",
    "train mae ROOT --out OUT --preset lage": "train mae: --preset is 'lage', wanted one of tiny, small, base, large",
    "train mae ROOT --out OUT preset=lage": "train mae: preset is 'lage', wanted one of tiny, small, base, large, huge",
    "train mae ROOT --out OUT learning.lrr=1": "train mae: there is no field learning.lrr; did you mean learning.lr?",
    "eval a b --data.kind epic --data.path x": "eval: --data.kind is 'epic', wanted one of ego4d, egomcq, ek100_mir",
    # numbers out of their limits
    TRAIN + "--lr -1": "--lr is -1, wanted more than 0 and finite",
    TRAIN + "--lr 0": "--lr is 0, wanted more than 0 and finite",
    TRAIN + "--steps 0": "--steps is 0, wanted at least 1",
    TRAIN + "--batch-clips 0": "--batch-clips is 0, wanted at least 1",
    TRAIN + "--warmup 2": "--warmup is 2, wanted a share of the steps, 0 to 1",
    TRAIN + "--threads -1": "--threads is -1, wanted 0 or more",
    "serve ROOT --threads 0": "--threads is 0, wanted at least 1",
    "serve ROOT --metrics-port -1": "--metrics-port is -1, wanted at least 0",
    "serve ROOT --lease-s 0": "--lease-s is 0, wanted more than 0",
    "serve ROOT --drain-s -1": "--drain-s is -1.0, wanted at least 0",
    "index ROOT --jobs 0": "--jobs is 0, wanted at least 1",
    "index ROOT --max-gap-s -1": "--max-gap-s is -1, wanted more than 0 seconds",
    "verify ROOT --jobs 0": "--jobs is 0, wanted at least 1",
    "chunk plain --out OUT --chunk-s 0": "--chunk-s is 0, wanted whole seconds from 1 on",
    "chunk plain --out OUT --short-side-px 1": "--short-side-px is 1, wanted an even number from 16 on",
    "chunk plain --out OUT --max-gap-s 0": "--max-gap-s is 0, wanted more than 0 seconds",
    "demo --seconds 0": "--seconds is 0, wanted more than 0",
    "bench decode --clips 0": "--clips is 0 and --rounds is 5, wanted at least 1",
    TRAIN + "--prefetch-mib 0": "--prefetch-mib is 0, wanted at least 1",
    TRAIN + "--hedge-share 2": "--hedge-share is 2, wanted 0 to 1",
    TRAIN + "--window-s 0": "--window-s is 0, wanted more than 0 seconds",
    TRAIN + "--attention flash --servers tcp://127.0.0.1:1": "--attention is flash, and ",
    TRAIN + "--mask-ratio 2": "--mask-ratio is 2, wanted more than 0 and less than 1",
    TRAIN + "mask_ratio=0": "--mask-ratio is 0, wanted more than 0 and less than 1",
    TRAIN + "--size-px 7": "--size-px is 7, wanted a multiple of 8",
    TRAIN + "--frames 3": "--frames is 3, wanted a multiple of 2",
    TRAIN + "--frames 0": "--frames is 0, wanted at least 1",
    TRAIN + "--betas 0.9 2": "--betas is 0.9 2, wanted both 0 or more and less than 1",
    TRAIN + "--weight-decay -1": "--weight-decay is -1, wanted 0 or more and finite",
    TRAIN + "--seed -1": "--seed is -1, wanted 0 to 2**64 - 1",
    TRAIN + "--poison-budget -1": "--poison-budget is -1, wanted a whole number or a share from 0 to 1",
    TRAIN + "--batch-clips 3 --nproc 2": "--batch-clips is 3, clips of a step that do not divide among 2 processes (",
    TRAIN + "--resume yes": "train mae: 'yes' is more than is taken; wanted ROOT",
    TRAIN + "steps=x": "train mae: steps is 'x', wanted a whole number or None",
    # encodings
    "chunk plain --out OUT --profile fast": "--profile is 'fast', wanted one of ",
    "chunk plain --out OUT --fps nine": "--fps is 'nine', wanted a number such as 30, 29.97 or 30000/1001",
    "chunk plain --out OUT --encoder x264": "--encoder is 'x264', which is unknown; did you mean libx264?",
    "chunk plain --out OUT --encoder-options crf": "--encoder-options: 'crf' is not name=value; wanted such as ",
    "chunk plain --out OUT --batch-clips 3": "chunk: --batch-clips goes with --advise only",
    "chunk plain --advise": "chunk: --advise needs --batch-clips and --step-s and --storage-mb-per-s too",
    # paths
    "serve nowhere": "root nowhere is not a folder; wanted one made by 'framefeed chunk' or 'framefeed index'",
    "serve plain": "root plain has no framefeed.manifest.jsonl; run 'framefeed index plain' first, or name the folder",
    "verify plain": "root plain has no framefeed.manifest.jsonl; run 'framefeed index plain' first",
    "index nowhere": "root nowhere is not a folder; wanted a folder of chunk folders or video files",
    "index empty": "root empty holds no video file; wanted files ending in .3gp",
    "index plain --report file": "--report file is there already and is no report; wanted a new file, or an earlier re",
    "chunk plain --out OUT --report file": "--report file is there already and is no report; wanted a new file",
    "verify root --report rows.csv": "--report rows.csv is there already and is no report; wanted a new file",
    "check root rows.csv --report file": "--report file is there already and is no report; wanted a new file",
    "index plain --report no/r": "--report no/r cannot be written: no is no folder",
    "index plain --index /proc/no": "the index cannot be written to /proc/no (No such file or directory); wanted ",
    "chunk nowhere --out OUT": "source nowhere does not exist",
    "chunk plain --out file": "--out file cannot be made a folder: File exists",
    "chunk plain --out plain": "source and root are the same folder plain; wanted another --out",
    "check ROOT no.csv": "annotations no.csv do not exist; wanted a file of rows, or a folder with one a split",
    "targets nowhere --out t.json": "registry nowhere is no folder; wanted the one of framefeed serve --registry",
    "demo --videos file": "--videos file is not a folder; wanted one that holds videos",
    "train nope.json": "recipe nope.json cannot be read: No such file or directory",
    # addresses and ports
    TRAIN + "--servers 127.0.0.1:5": "server address '127.0.0.1:5' names no transport; wanted one of tcp://HOST:PORT",
    TRAIN + "--servers http://x:1": "server address 'http://x:1' has the unknown transport 'http'; wanted one of tcp:",
    TRAIN + "--servers tcp://10.0.0.1": "server address 'tcp://10.0.0.1' names no port from 1 to 65535; wanted tcp://H",
    "serve ROOT --bind 5555": "--bind: '5555' is no endpoint; wanted tcp://ADDRESS:PORT",
    "serve ROOT --bind tcp://127.0.0.1:99999": "--bind: 'tcp://127.0.0.1:99999' has port 99999, wanted 0 to 65535 (0",
    "serve ROOT --bind tcp://0.0.0.0:5555": "--bind: tcp://0.0.0.0:5555 lets anyone who can reach this machine in; add",
    "serve ROOT --sockets 9": "--sockets: '9' is no CPU socket this process may use; it may use 0",
    "serve ROOT --run-share x": "--run-share: 'x' is no share; wanted NAME=WEIGHT, as 'ablation=0.5'",
    "serve ROOT --tls-cert no": "--tls-cert is given without --tls-key, wanted both or neither",
    "top nohost:xx": "'http://nohost:xx': Port could not be cast to integer value as 'xx'; wanted http://HOST:PORT/PATH",
    "top 127.0.0.1:1 --once": "http://127.0.0.1:1/metrics: does not answer: ",
    "healthcheck nourl": "'nourl' is no address to ask; wanted http://HOST:PORT/PATH",
    # odd files and rows
    "index junk": "root junk: none of its 1 files can be served; first: a.mp4: cannot be read as video (Invalid data",
    "check ROOT rows.csv": "1 of 2 rows of rows.csv cannot be used: 1 not in the manifest",
    "check ROOT file": "list file, line 1 is 'x', wanted PATH LABEL or PATH FRAMES LABEL, the same on all lines",
    "check ROOT file --kind table": "table file has the header 'x', wanted video, label or text, and perhaps start",
    "check ROOT rows.csv --split dev": "check: --split is 'dev', wanted one of train, val, test",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mistakes")
    furnish(place)
    (place / "rows.csv").write_text("video,start,end,label\na,0,0.2,cut\nb,0,0.2,cut\n")
    return place


def test_there_are_sixty_of_them() -> None:
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_costs_nothing(
    typed: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = _files(place)
    assert main(typed.replace("ROOT", "root").replace("OUT", str(tmp_path / "out")).split()) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith(f"framefeed: {MISTAKES[typed]}")
    assert said.count("\n") == 1
    assert before.items() <= _files(place).items()


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_report_and_an_empty_file_are_replaced(place: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    report.touch()
    for _ in range(2):
        assert main(["index", str(place / "root"), "--report", str(report)]) == 0
        assert '"state": "whole"' in report.read_text()
