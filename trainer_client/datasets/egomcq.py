"""Reads EgoMCQ's questions, a text and clips to choose from. It knows no videos.

Source: Lin et al. 2022, "Egocentric Video-Language Pretraining", §3.2. Each choice of each question is a row. A
question is intra-video if its choices are all of one video, and else inter-video: the file's `types` are numbered one
way in EgoVLP's and LaViLa's code and the other way in EgoVLPv2's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.numerals import seconds_in
from trainer_client.datasets.parsed import Parsed, decoded, read_bytes, whole_text

EGOMCQ_NAME = "egomcq.json"
QUESTION, CHOICE, ANSWER, INTRA = "question", "choice", "answer", "intra"


def read_egomcq(path: Path) -> Parsed:
    """Rows whose text is the question's, and whose labels say which question and choice they are, which choice is
    right, and whether the question is intra-video. Raises BadInput for a file that is none of such questions.
    """
    try:
        whole = json.loads(decoded(read_bytes(path), path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"EgoMCQ {path} is no JSON: {show_value(str(error))}") from None
    questions = list(whole.values()) if isinstance(whole, dict) else whole
    if not isinstance(questions, list) or not questions:
        raise BadInput(f"EgoMCQ {path} has no question, wanted an object of them: an empty split")
    rows: list[Row] = []
    for number, question in enumerate(questions):
        try:
            rows += _rows(number, question)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"EgoMCQ {path}: question {number} is none ({type(error).__name__}: {show_value(str(error))}); wanted "
                "answer, query.clip_text and choices of video_uid, clip_start and clip_end"
            ) from None
    return Parsed(rows=rows, labels=(QUESTION, CHOICE, ANSWER, INTRA), has_text=True)


def _rows(number: int, question: Mapping[str, object]) -> Iterator[Row]:
    query, choices, answer = question["query"], question["choices"], question["answer"]
    if not isinstance(query, dict) or not isinstance(choices, dict | list) or not isinstance(answer, int | str):
        raise TypeError("its parts are of other types")
    ordered = choices if isinstance(choices, list) else [choices[str(at)] for at in range(len(choices))]
    right = int(answer)
    if not 0 <= right < len(ordered):
        raise ValueError(f"answer is {right}, wanted 0 to {len(ordered) - 1}")
    intra = len({choice["video_uid"] for choice in ordered}) == 1
    for at, choice in enumerate(ordered):
        yield Row(
            video=whole_text(choice["video_uid"], "video_uid"),
            start_s=seconds_in(choice["clip_start"], "clip_start"),
            end_s=seconds_in(choice["clip_end"], "clip_end"),
            texts=(whole_text(query["clip_text"], "clip_text"),),
            labels=(number, at, right, int(intra)),
        )
