from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Call(_message.Message):
    __slots__ = ("version", "attempt", "decode", "describe", "cancel")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    DESCRIBE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    version: int
    attempt: int
    decode: Decode
    describe: Describe
    cancel: Cancel
    def __init__(self, version: _Optional[int] = ..., attempt: _Optional[int] = ..., decode: _Optional[_Union[Decode, _Mapping]] = ..., describe: _Optional[_Union[Describe, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ...) -> None: ...

class Decode(_message.Message):
    __slots__ = ("deadline_s", "request", "alone", "run", "work_class", "dataset")
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    WORK_CLASS_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    deadline_s: float
    request: ClipRequest
    alone: bool
    run: str
    work_class: str
    dataset: str
    def __init__(self, deadline_s: _Optional[float] = ..., request: _Optional[_Union[ClipRequest, _Mapping]] = ..., alone: _Optional[bool] = ..., run: _Optional[str] = ..., work_class: _Optional[str] = ..., dataset: _Optional[str] = ...) -> None: ...

class Describe(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClipRequest(_message.Message):
    __slots__ = ("video", "start_s", "end_s", "segments", "dense", "linspace", "dense_view", "frame_window", "resampled", "at_seconds", "at_frames", "published", "random_resized", "resized_centre", "explicit", "multi_scale", "random", "centre", "view", "whole", "letterbox", "width_px", "height_px", "seed", "hflip_probability", "pixel_format", "interpolation")
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    LINSPACE_FIELD_NUMBER: _ClassVar[int]
    DENSE_VIEW_FIELD_NUMBER: _ClassVar[int]
    FRAME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    RESAMPLED_FIELD_NUMBER: _ClassVar[int]
    AT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    RANDOM_RESIZED_FIELD_NUMBER: _ClassVar[int]
    RESIZED_CENTRE_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_FIELD_NUMBER: _ClassVar[int]
    MULTI_SCALE_FIELD_NUMBER: _ClassVar[int]
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    CENTRE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    LETTERBOX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    HFLIP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    PIXEL_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    video: str
    start_s: float
    end_s: float
    segments: Segments
    dense: Dense
    linspace: Linspace
    dense_view: DenseView
    frame_window: FrameWindow
    resampled: Resampled
    at_seconds: AtSeconds
    at_frames: AtFrames
    published: PublishedRule
    random_resized: RandomResizedCrop
    resized_centre: ResizedCentreCrop
    explicit: ExplicitBox
    multi_scale: MultiScaleCrop
    random: RandomCrop
    centre: CentreCrop
    view: ViewCrop
    whole: WholeFrame
    letterbox: Letterbox
    width_px: int
    height_px: int
    seed: int
    hflip_probability: float
    pixel_format: str
    interpolation: str
    def __init__(self, video: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., segments: _Optional[_Union[Segments, _Mapping]] = ..., dense: _Optional[_Union[Dense, _Mapping]] = ..., linspace: _Optional[_Union[Linspace, _Mapping]] = ..., dense_view: _Optional[_Union[DenseView, _Mapping]] = ..., frame_window: _Optional[_Union[FrameWindow, _Mapping]] = ..., resampled: _Optional[_Union[Resampled, _Mapping]] = ..., at_seconds: _Optional[_Union[AtSeconds, _Mapping]] = ..., at_frames: _Optional[_Union[AtFrames, _Mapping]] = ..., published: _Optional[_Union[PublishedRule, _Mapping]] = ..., random_resized: _Optional[_Union[RandomResizedCrop, _Mapping]] = ..., resized_centre: _Optional[_Union[ResizedCentreCrop, _Mapping]] = ..., explicit: _Optional[_Union[ExplicitBox, _Mapping]] = ..., multi_scale: _Optional[_Union[MultiScaleCrop, _Mapping]] = ..., random: _Optional[_Union[RandomCrop, _Mapping]] = ..., centre: _Optional[_Union[CentreCrop, _Mapping]] = ..., view: _Optional[_Union[ViewCrop, _Mapping]] = ..., whole: _Optional[_Union[WholeFrame, _Mapping]] = ..., letterbox: _Optional[_Union[Letterbox, _Mapping]] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., seed: _Optional[int] = ..., hflip_probability: _Optional[float] = ..., pixel_format: _Optional[str] = ..., interpolation: _Optional[str] = ...) -> None: ...

class Segments(_message.Message):
    __slots__ = ("frames", "jitter")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    frames: int
    jitter: bool
    def __init__(self, frames: _Optional[int] = ..., jitter: _Optional[bool] = ...) -> None: ...

class Dense(_message.Message):
    __slots__ = ("frames", "stride", "jitter", "short")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    stride: int
    jitter: bool
    short: str
    def __init__(self, frames: _Optional[int] = ..., stride: _Optional[int] = ..., jitter: _Optional[bool] = ..., short: _Optional[str] = ...) -> None: ...

class Linspace(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: int
    def __init__(self, frames: _Optional[int] = ...) -> None: ...

class DenseView(_message.Message):
    __slots__ = ("frames", "stride", "view", "views", "short")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    stride: int
    view: int
    views: int
    short: str
    def __init__(self, frames: _Optional[int] = ..., stride: _Optional[int] = ..., view: _Optional[int] = ..., views: _Optional[int] = ..., short: _Optional[str] = ...) -> None: ...

class FrameWindow(_message.Message):
    __slots__ = ("frames", "window_frames", "jitter", "short")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FRAMES_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    window_frames: int
    jitter: bool
    short: str
    def __init__(self, frames: _Optional[int] = ..., window_frames: _Optional[int] = ..., jitter: _Optional[bool] = ..., short: _Optional[str] = ...) -> None: ...

class Resampled(_message.Message):
    __slots__ = ("frames", "fps", "jitter", "short")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    fps: float
    jitter: bool
    short: str
    def __init__(self, frames: _Optional[int] = ..., fps: _Optional[float] = ..., jitter: _Optional[bool] = ..., short: _Optional[str] = ...) -> None: ...

class AtSeconds(_message.Message):
    __slots__ = ("offsets_s", "short")
    OFFSETS_S_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    offsets_s: _containers.RepeatedScalarFieldContainer[float]
    short: str
    def __init__(self, offsets_s: _Optional[_Iterable[float]] = ..., short: _Optional[str] = ...) -> None: ...

class AtFrames(_message.Message):
    __slots__ = ("offsets_frames", "short")
    OFFSETS_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    offsets_frames: _containers.RepeatedScalarFieldContainer[int]
    short: str
    def __init__(self, offsets_frames: _Optional[_Iterable[int]] = ..., short: _Optional[str] = ...) -> None: ...

class PublishedRule(_message.Message):
    __slots__ = ("rule", "frames", "stride", "train", "view", "views")
    RULE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    rule: str
    frames: int
    stride: int
    train: bool
    view: int
    views: int
    def __init__(self, rule: _Optional[str] = ..., frames: _Optional[int] = ..., stride: _Optional[int] = ..., train: _Optional[bool] = ..., view: _Optional[int] = ..., views: _Optional[int] = ...) -> None: ...

class RandomResizedCrop(_message.Message):
    __slots__ = ("scale", "ratio")
    SCALE_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    scale: _containers.RepeatedScalarFieldContainer[float]
    ratio: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, scale: _Optional[_Iterable[float]] = ..., ratio: _Optional[_Iterable[float]] = ...) -> None: ...

class ResizedCentreCrop(_message.Message):
    __slots__ = ("ratio",)
    RATIO_FIELD_NUMBER: _ClassVar[int]
    ratio: float
    def __init__(self, ratio: _Optional[float] = ...) -> None: ...

class MultiScaleCrop(_message.Message):
    __slots__ = ("shares", "snap_px")
    SHARES_FIELD_NUMBER: _ClassVar[int]
    SNAP_PX_FIELD_NUMBER: _ClassVar[int]
    shares: _containers.RepeatedScalarFieldContainer[float]
    snap_px: int
    def __init__(self, shares: _Optional[_Iterable[float]] = ..., snap_px: _Optional[int] = ...) -> None: ...

class RandomCrop(_message.Message):
    __slots__ = ("width_px", "height_px")
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    width_px: int
    height_px: int
    def __init__(self, width_px: _Optional[int] = ..., height_px: _Optional[int] = ...) -> None: ...

class CentreCrop(_message.Message):
    __slots__ = ("width_px", "height_px")
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    width_px: int
    height_px: int
    def __init__(self, width_px: _Optional[int] = ..., height_px: _Optional[int] = ...) -> None: ...

class ViewCrop(_message.Message):
    __slots__ = ("view", "views", "ratio")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    view: int
    views: int
    ratio: float
    def __init__(self, view: _Optional[int] = ..., views: _Optional[int] = ..., ratio: _Optional[float] = ...) -> None: ...

class WholeFrame(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Letterbox(_message.Message):
    __slots__ = ("centred",)
    CENTRED_FIELD_NUMBER: _ClassVar[int]
    centred: bool
    def __init__(self, centred: _Optional[bool] = ...) -> None: ...

class ExplicitBox(_message.Message):
    __slots__ = ("box",)
    BOX_FIELD_NUMBER: _ClassVar[int]
    box: Box
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x_px", "y_px", "width_px", "height_px")
    X_PX_FIELD_NUMBER: _ClassVar[int]
    Y_PX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    x_px: int
    y_px: int
    width_px: int
    height_px: int
    def __init__(self, x_px: _Optional[int] = ..., y_px: _Optional[int] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("version", "attempt", "server", "clip", "error", "description", "load", "pixels")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    version: int
    attempt: int
    server: str
    clip: Clip
    error: Error
    description: Description
    load: Load
    pixels: bytes
    def __init__(self, version: _Optional[int] = ..., attempt: _Optional[int] = ..., server: _Optional[str] = ..., clip: _Optional[_Union[Clip, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., description: _Optional[_Union[Description, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., pixels: _Optional[bytes] = ...) -> None: ...

class Clip(_message.Message):
    __slots__ = ("pts_s", "box", "flipped", "colour", "read_bytes", "fed_packets", "stage_s", "placed", "padding")
    class StageSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PTS_S_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    FLIPPED_FIELD_NUMBER: _ClassVar[int]
    COLOUR_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    FED_PACKETS_FIELD_NUMBER: _ClassVar[int]
    STAGE_S_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    pts_s: _containers.RepeatedScalarFieldContainer[float]
    box: Box
    flipped: bool
    colour: Colour
    read_bytes: int
    fed_packets: int
    stage_s: _containers.ScalarMap[str, float]
    placed: Box
    padding: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, pts_s: _Optional[_Iterable[float]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., flipped: _Optional[bool] = ..., colour: _Optional[_Union[Colour, _Mapping]] = ..., read_bytes: _Optional[int] = ..., fed_packets: _Optional[int] = ..., stage_s: _Optional[_Mapping[str, float]] = ..., placed: _Optional[_Union[Box, _Mapping]] = ..., padding: _Optional[_Iterable[bool]] = ...) -> None: ...

class Colour(_message.Message):
    __slots__ = ("matrix", "full_range", "transfer")
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    FULL_RANGE_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    matrix: str
    full_range: bool
    transfer: str
    def __init__(self, matrix: _Optional[str] = ..., full_range: _Optional[bool] = ..., transfer: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("fingerprint", "dataset", "videos", "workers", "state", "max_clip_bytes", "software", "instance", "siblings", "metrics_port")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    VIDEOS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MAX_CLIP_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    METRICS_PORT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    dataset: str
    videos: int
    workers: int
    state: str
    max_clip_bytes: int
    software: str
    instance: str
    siblings: _containers.RepeatedScalarFieldContainer[str]
    metrics_port: int
    def __init__(self, fingerprint: _Optional[str] = ..., dataset: _Optional[str] = ..., videos: _Optional[int] = ..., workers: _Optional[int] = ..., state: _Optional[str] = ..., max_clip_bytes: _Optional[int] = ..., software: _Optional[str] = ..., instance: _Optional[str] = ..., siblings: _Optional[_Iterable[str]] = ..., metrics_port: _Optional[int] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("queued", "credits", "front_s", "front_busy")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    FRONT_S_FIELD_NUMBER: _ClassVar[int]
    FRONT_BUSY_FIELD_NUMBER: _ClassVar[int]
    queued: int
    credits: int
    front_s: float
    front_busy: float
    def __init__(self, queued: _Optional[int] = ..., credits: _Optional[int] = ..., front_s: _Optional[float] = ..., front_busy: _Optional[float] = ...) -> None: ...
