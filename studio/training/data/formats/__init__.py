"""How data sets are stored: one file a format, in the order in which a folder is asked for them.

A new format is its file and its name here.
"""

from __future__ import annotations

from importlib import import_module

from studio.registry import Registry
from studio.training.data.formats.base import Format

FORMATS: Registry[Format] = Registry("data set format")

for _name in ("metadata", "parquet", "flickr8k", "idx", "kohya", "folder"):
    FORMATS.add(_name, import_module(f"studio.training.data.formats.{_name}").FORMAT)
