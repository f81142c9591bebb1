"""Data: each module declares a shape, a value range and a number of levels, and yields batches."""

from nelbo.data.base import DataModule
from nelbo.data.batch import Batch
from nelbo.data.record import DataRecord
from nelbo.data.spec import DataSpec

__all__ = ["Batch", "DataModule", "DataRecord", "DataSpec"]
