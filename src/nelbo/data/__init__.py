"""Data modules: they declare shape, value range and number of levels, and yield batches."""

from nelbo.data.base import DataModule
from nelbo.data.batch import Batch
from nelbo.data.record import DataRecord
from nelbo.data.spec import DataSpec

__all__ = ["Batch", "DataModule", "DataRecord", "DataSpec"]
