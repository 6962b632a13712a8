"""Views: the samples of a dataset, each once for every view that a test takes of it; knows no policies or servers."""

from __future__ import annotations

from dataclasses import replace

from framefeed.errors import BadInput
from framefeed.option_types import shown, whole_number
from trainer_client.samples import Dataset, Sample


class Views:
    """A Dataset in which view v of sample i stands at i x views + v; span and target are the sample's.

    A test predicts from the mean over the views of one sample, of logits (TimeSformer sums them, which ranks alike) or
    of probabilities (VideoMAE). In the dataset's order, where only the last batch may begin anew:

        policy = ClipPolicy(sampling=DenseView(frames=16, stride=4, view=0, views=5), crop=ViewCrop(view=0, views=3))
        options = LoaderOptions(servers=servers, batch_clips=60, epochs=1, shuffle=False)
        logits = np.zeros((len(dataset), classes))
        with ClipLoader(Views(dataset, views=policy.views), policy, options) as loader:
            for batch in loader:
                once = batch.epochs == 0
                np.add.at(logits, batch.indices[once] // policy.views, model(batch.pixels)[once])
        logits /= policy.views

    A clip that stands in for a bad one (PoisonOptions) is a view of its own sample: count views then, instead.
    """

    def __init__(self, dataset: Dataset, *, views: int) -> None:
        """`views` is ClipPolicy.views. Raises BadInput if it is below 1."""
        if not whole_number(views) or views < 1:
            raise BadInput(f"views: views is {shown(views)}, wanted a whole number of at least 1")
        self._dataset, self._views = dataset, views

    @property
    def identity(self) -> str:
        """Which data set the videos are of, if the dataset says it."""
        return str(getattr(self._dataset, "identity", ""))

    def __len__(self) -> int:
        return len(self._dataset) * self._views

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index from 0. Raises IndexError past the end, so iteration ends there."""
        if not 0 <= index < len(self):
            raise IndexError(f"views: index is {index}, wanted 0 to {len(self) - 1}")
        at, view = divmod(index, self._views)
        return replace(self._dataset[at], view=view)
