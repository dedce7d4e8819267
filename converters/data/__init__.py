"""DATA: the user's samples, one at a time, checked against the model's signature."""

from converters.data.dataset import ArrayDataset, Dataset, Subset
from converters.data.open import open_data
from converters.data.split import Split, split_samples

__all__ = ["ArrayDataset", "Dataset", "Split", "Subset", "open_data", "split_samples"]
