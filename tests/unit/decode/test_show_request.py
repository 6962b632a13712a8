"""What `framefeed show` reads: policies, samples and requests, or one clear line."""

import json
from pathlib import Path

import pytest

from decode_server.show.show_request import policy_from_text, read_requests, sample_at
from framefeed.errors import BadInput
from framefeed.request import ClipRequest
from framefeed.wire import map_of_request
from tests.unit.contract.test_request import REQUEST


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("letterbox", {"policy": "letterbox"}),
        ("dense:frames=16,stride=4,short=pad", {"policy": "dense", "frames": 16, "stride": 4, "short": "pad"}),
        ("dense:jitter=false", {"policy": "dense", "jitter": False}),
        (
            "random_resized:scale=[0.5, 1.0],ratio=[1,1]",
            {"policy": "random_resized", "scale": [0.5, 1.0], "ratio": [1, 1]},
        ),
    ],
)
def test_policies_are_a_name_and_fields(text: str, body: dict[str, object]) -> None:
    assert policy_from_text(text) == body


@pytest.mark.parametrize("text", ["", ":frames=3", "dense:frames", "dense:frames=3,,stride=2", "a:b=[1,2"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"does not read, from .* on; wanted NAME:field=value"):
        policy_from_text(text)


def test_requests_come_from_json(tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    path.write_text(json.dumps([map_of_request(REQUEST), map_of_request(REQUEST)]))
    assert read_requests(path) == [REQUEST, REQUEST]
    path.write_text(json.dumps(map_of_request(REQUEST)))
    assert read_requests(path) == [REQUEST]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "hold no list of 1 to 1000 JSON maps"),
        ("[3]", "hold no list of 1 to 1000 JSON maps"),
        (json.dumps(map_of_request(REQUEST) | {"seed": -1}), r"batch\.json, number 0: request: seed is -1"),
        (json.dumps(map_of_request(REQUEST) | {"colour": 1}), "number 0: Object contains unknown field `colour`"),
    ],
)
def test_requests_that_do_not_read_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "batch.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_requests(path)


def test_a_sample_is_a_line_of_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps({"video": "v", "start_s": i, "end_s": i + 1, "label": 3}) for i in range(3)))
    assert sample_at(path, 2) == {"video": "v", "start_s": 2, "end_s": 3}
    with pytest.raises(BadInput, match="there is no line for index 3"):
        sample_at(path, 3)
    path.write_text('{"video": "v"}\n')
    with pytest.raises(BadInput, match=r"index 0, cannot be read \('start_s'\)"):
        sample_at(path, 0)


def test_the_fields_of_a_request_are_all_spelled() -> None:
    assert set(map_of_request(REQUEST)) == set(ClipRequest.__struct_fields__)
