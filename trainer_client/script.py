"""What a training script needs, by one import: samples, policies and the loader. It has nothing of its own.

from trainer_client.script import ClipLoader, ClipPolicy, LoaderOptions, RandomResizedCrop, Sample, Segments
"""

from framefeed.crops import CentreCrop, RandomResizedCrop, ResizedCentreCrop
from framefeed.errors import BadInput, FramefeedError
from framefeed.manifest import Manifest, read_manifest
from framefeed.quarantine import read_quarantine
from framefeed.sampling import Dense, Segments
from trainer_client.clip_policy import ClipPolicy
from trainer_client.counted_rows import counted
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.row_check import check_samples
from trainer_client.datasets.spec import DataSpec
from trainer_client.feed.batch import Batch
from trainer_client.feed.stand_ins import PoisonOptions
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample, VideoWindows
from trainer_client.views import Views

__all__ = [
    "BadInput",
    "Batch",
    "CentreCrop",
    "ClipLoader",
    "ClipPolicy",
    "DataSpec",
    "Dense",
    "FramefeedError",
    "LoaderOptions",
    "Manifest",
    "PoisonOptions",
    "RandomResizedCrop",
    "ResizedCentreCrop",
    "Sample",
    "Segments",
    "VideoWindows",
    "Views",
    "check_samples",
    "counted",
    "open_dataset",
    "read_manifest",
    "read_quarantine",
]
