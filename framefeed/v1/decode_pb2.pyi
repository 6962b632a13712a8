from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PixelFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIXEL_FORMAT_UNSPECIFIED: _ClassVar[PixelFormat]
    PIXEL_FORMAT_RGB24: _ClassVar[PixelFormat]
    PIXEL_FORMAT_YUV420P: _ClassVar[PixelFormat]

class Interpolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERPOLATION_UNSPECIFIED: _ClassVar[Interpolation]
    INTERPOLATION_BILINEAR: _ClassVar[Interpolation]
    INTERPOLATION_BICUBIC: _ClassVar[Interpolation]

class Short(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHORT_UNSPECIFIED: _ClassVar[Short]
    SHORT_HOLD: _ClassVar[Short]
    SHORT_LOOP: _ClassVar[Short]
    SHORT_PAD: _ClassVar[Short]
    SHORT_REFUSE: _ClassVar[Short]

class Matrix(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MATRIX_UNSPECIFIED: _ClassVar[Matrix]
    MATRIX_BT601: _ClassVar[Matrix]
    MATRIX_BT709: _ClassVar[Matrix]
    MATRIX_BT2020: _ClassVar[Matrix]
PIXEL_FORMAT_UNSPECIFIED: PixelFormat
PIXEL_FORMAT_RGB24: PixelFormat
PIXEL_FORMAT_YUV420P: PixelFormat
INTERPOLATION_UNSPECIFIED: Interpolation
INTERPOLATION_BILINEAR: Interpolation
INTERPOLATION_BICUBIC: Interpolation
SHORT_UNSPECIFIED: Short
SHORT_HOLD: Short
SHORT_LOOP: Short
SHORT_PAD: Short
SHORT_REFUSE: Short
MATRIX_UNSPECIFIED: Matrix
MATRIX_BT601: Matrix
MATRIX_BT709: Matrix
MATRIX_BT2020: Matrix

class DecodeRequest(_message.Message):
    __slots__ = ("attempt", "deadline_s", "request", "alone")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    deadline_s: float
    request: ClipRequest
    alone: bool
    def __init__(self, attempt: _Optional[int] = ..., deadline_s: _Optional[float] = ..., request: _Optional[_Union[ClipRequest, _Mapping]] = ..., alone: _Optional[bool] = ...) -> None: ...

class ClipRequest(_message.Message):
    __slots__ = ("video", "start_s", "end_s", "segments", "dense", "linspace", "dense_view", "frame_window", "resampled", "at_seconds", "at_frames", "published", "random_resized", "resized_centre", "explicit_box", "multi_scale", "random", "centre", "view", "whole", "letterbox", "width_px", "height_px", "seed", "hflip_probability", "pixel_format", "interpolation")
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
    EXPLICIT_BOX_FIELD_NUMBER: _ClassVar[int]
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
    explicit_box: Box
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
    pixel_format: PixelFormat
    interpolation: Interpolation
    def __init__(self, video: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., segments: _Optional[_Union[Segments, _Mapping]] = ..., dense: _Optional[_Union[Dense, _Mapping]] = ..., linspace: _Optional[_Union[Linspace, _Mapping]] = ..., dense_view: _Optional[_Union[DenseView, _Mapping]] = ..., frame_window: _Optional[_Union[FrameWindow, _Mapping]] = ..., resampled: _Optional[_Union[Resampled, _Mapping]] = ..., at_seconds: _Optional[_Union[AtSeconds, _Mapping]] = ..., at_frames: _Optional[_Union[AtFrames, _Mapping]] = ..., published: _Optional[_Union[PublishedRule, _Mapping]] = ..., random_resized: _Optional[_Union[RandomResizedCrop, _Mapping]] = ..., resized_centre: _Optional[_Union[ResizedCentreCrop, _Mapping]] = ..., explicit_box: _Optional[_Union[Box, _Mapping]] = ..., multi_scale: _Optional[_Union[MultiScaleCrop, _Mapping]] = ..., random: _Optional[_Union[RandomCrop, _Mapping]] = ..., centre: _Optional[_Union[CentreCrop, _Mapping]] = ..., view: _Optional[_Union[ViewCrop, _Mapping]] = ..., whole: _Optional[_Union[WholeFrame, _Mapping]] = ..., letterbox: _Optional[_Union[Letterbox, _Mapping]] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., seed: _Optional[int] = ..., hflip_probability: _Optional[float] = ..., pixel_format: _Optional[_Union[PixelFormat, str]] = ..., interpolation: _Optional[_Union[Interpolation, str]] = ...) -> None: ...

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
    short: Short
    def __init__(self, frames: _Optional[int] = ..., stride: _Optional[int] = ..., jitter: _Optional[bool] = ..., short: _Optional[_Union[Short, str]] = ...) -> None: ...

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
    short: Short
    def __init__(self, frames: _Optional[int] = ..., stride: _Optional[int] = ..., view: _Optional[int] = ..., views: _Optional[int] = ..., short: _Optional[_Union[Short, str]] = ...) -> None: ...

class FrameWindow(_message.Message):
    __slots__ = ("frames", "window_frames", "jitter", "short")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FRAMES_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    window_frames: int
    jitter: bool
    short: Short
    def __init__(self, frames: _Optional[int] = ..., window_frames: _Optional[int] = ..., jitter: _Optional[bool] = ..., short: _Optional[_Union[Short, str]] = ...) -> None: ...

class Resampled(_message.Message):
    __slots__ = ("frames", "fps", "jitter", "short")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    fps: float
    jitter: bool
    short: Short
    def __init__(self, frames: _Optional[int] = ..., fps: _Optional[float] = ..., jitter: _Optional[bool] = ..., short: _Optional[_Union[Short, str]] = ...) -> None: ...

class AtSeconds(_message.Message):
    __slots__ = ("offsets_s", "short")
    OFFSETS_S_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    offsets_s: _containers.RepeatedScalarFieldContainer[float]
    short: Short
    def __init__(self, offsets_s: _Optional[_Iterable[float]] = ..., short: _Optional[_Union[Short, str]] = ...) -> None: ...

class AtFrames(_message.Message):
    __slots__ = ("offsets_frames", "short")
    OFFSETS_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SHORT_FIELD_NUMBER: _ClassVar[int]
    offsets_frames: _containers.RepeatedScalarFieldContainer[int]
    short: Short
    def __init__(self, offsets_frames: _Optional[_Iterable[int]] = ..., short: _Optional[_Union[Short, str]] = ...) -> None: ...

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
    __slots__ = ("scale_low", "scale_high", "ratio_low", "ratio_high")
    SCALE_LOW_FIELD_NUMBER: _ClassVar[int]
    SCALE_HIGH_FIELD_NUMBER: _ClassVar[int]
    RATIO_LOW_FIELD_NUMBER: _ClassVar[int]
    RATIO_HIGH_FIELD_NUMBER: _ClassVar[int]
    scale_low: float
    scale_high: float
    ratio_low: float
    ratio_high: float
    def __init__(self, scale_low: _Optional[float] = ..., scale_high: _Optional[float] = ..., ratio_low: _Optional[float] = ..., ratio_high: _Optional[float] = ...) -> None: ...

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

class DecodeReply(_message.Message):
    __slots__ = ("attempt", "server", "queued", "clip", "error", "notice")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    server: str
    queued: int
    clip: Clip
    error: Error
    notice: DescribeReply
    def __init__(self, attempt: _Optional[int] = ..., server: _Optional[str] = ..., queued: _Optional[int] = ..., clip: _Optional[_Union[Clip, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., notice: _Optional[_Union[DescribeReply, _Mapping]] = ...) -> None: ...

class Clip(_message.Message):
    __slots__ = ("pixels", "pts_s", "box", "flipped", "matrix", "full_range", "read_bytes", "fed_packets", "stage_s", "placed", "padding")
    class StageSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    PTS_S_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    FLIPPED_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    FULL_RANGE_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    FED_PACKETS_FIELD_NUMBER: _ClassVar[int]
    STAGE_S_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    pixels: bytes
    pts_s: _containers.RepeatedScalarFieldContainer[float]
    box: Box
    flipped: bool
    matrix: Matrix
    full_range: bool
    read_bytes: int
    fed_packets: int
    stage_s: _containers.ScalarMap[str, float]
    placed: Box
    padding: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, pixels: _Optional[bytes] = ..., pts_s: _Optional[_Iterable[float]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., flipped: _Optional[bool] = ..., matrix: _Optional[_Union[Matrix, str]] = ..., full_range: _Optional[bool] = ..., read_bytes: _Optional[int] = ..., fed_packets: _Optional[int] = ..., stage_s: _Optional[_Mapping[str, float]] = ..., placed: _Optional[_Union[Box, _Mapping]] = ..., padding: _Optional[_Iterable[bool]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("server", "fingerprint", "videos", "workers", "state")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VIDEOS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    server: str
    fingerprint: str
    videos: int
    workers: int
    state: str
    def __init__(self, server: _Optional[str] = ..., fingerprint: _Optional[str] = ..., videos: _Optional[int] = ..., workers: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...
