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

class Matrix(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MATRIX_UNSPECIFIED: _ClassVar[Matrix]
    MATRIX_BT601: _ClassVar[Matrix]
    MATRIX_BT709: _ClassVar[Matrix]
    MATRIX_BT2020: _ClassVar[Matrix]
PIXEL_FORMAT_UNSPECIFIED: PixelFormat
PIXEL_FORMAT_RGB24: PixelFormat
PIXEL_FORMAT_YUV420P: PixelFormat
MATRIX_UNSPECIFIED: Matrix
MATRIX_BT601: Matrix
MATRIX_BT709: Matrix
MATRIX_BT2020: Matrix

class DecodeRequest(_message.Message):
    __slots__ = ("attempt", "deadline_s", "request")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    deadline_s: float
    request: ClipRequest
    def __init__(self, attempt: _Optional[int] = ..., deadline_s: _Optional[float] = ..., request: _Optional[_Union[ClipRequest, _Mapping]] = ...) -> None: ...

class ClipRequest(_message.Message):
    __slots__ = ("video", "start_s", "end_s", "segments", "dense", "random_resized", "resized_centre", "explicit_box", "width_px", "height_px", "seed", "hflip_probability", "pixel_format")
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    RANDOM_RESIZED_FIELD_NUMBER: _ClassVar[int]
    RESIZED_CENTRE_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_BOX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    HFLIP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    PIXEL_FORMAT_FIELD_NUMBER: _ClassVar[int]
    video: str
    start_s: float
    end_s: float
    segments: Segments
    dense: Dense
    random_resized: RandomResizedCrop
    resized_centre: ResizedCentreCrop
    explicit_box: Box
    width_px: int
    height_px: int
    seed: int
    hflip_probability: float
    pixel_format: PixelFormat
    def __init__(self, video: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., segments: _Optional[_Union[Segments, _Mapping]] = ..., dense: _Optional[_Union[Dense, _Mapping]] = ..., random_resized: _Optional[_Union[RandomResizedCrop, _Mapping]] = ..., resized_centre: _Optional[_Union[ResizedCentreCrop, _Mapping]] = ..., explicit_box: _Optional[_Union[Box, _Mapping]] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., seed: _Optional[int] = ..., hflip_probability: _Optional[float] = ..., pixel_format: _Optional[_Union[PixelFormat, str]] = ...) -> None: ...

class Segments(_message.Message):
    __slots__ = ("frames", "jitter")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    frames: int
    jitter: bool
    def __init__(self, frames: _Optional[int] = ..., jitter: _Optional[bool] = ...) -> None: ...

class Dense(_message.Message):
    __slots__ = ("frames", "stride", "jitter")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    frames: int
    stride: int
    jitter: bool
    def __init__(self, frames: _Optional[int] = ..., stride: _Optional[int] = ..., jitter: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("attempt", "server", "queued", "clip", "error")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    server: str
    queued: int
    clip: Clip
    error: Error
    def __init__(self, attempt: _Optional[int] = ..., server: _Optional[str] = ..., queued: _Optional[int] = ..., clip: _Optional[_Union[Clip, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Clip(_message.Message):
    __slots__ = ("pixels", "pts_s", "box", "flipped", "matrix", "full_range", "read_bytes", "fed_packets", "stage_s")
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
    pixels: bytes
    pts_s: _containers.RepeatedScalarFieldContainer[float]
    box: Box
    flipped: bool
    matrix: Matrix
    full_range: bool
    read_bytes: int
    fed_packets: int
    stage_s: _containers.ScalarMap[str, float]
    def __init__(self, pixels: _Optional[bytes] = ..., pts_s: _Optional[_Iterable[float]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., flipped: _Optional[bool] = ..., matrix: _Optional[_Union[Matrix, str]] = ..., full_range: _Optional[bool] = ..., read_bytes: _Optional[int] = ..., fed_packets: _Optional[int] = ..., stage_s: _Optional[_Mapping[str, float]] = ...) -> None: ...

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
