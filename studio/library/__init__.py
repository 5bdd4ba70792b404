"""What lies in the data folder to paint with. Models: found, judged by their headers, hashed, looked up by any of their names.

header    a .safetensors header, read without mapping and checked
hashes    AUTOMATIC1111's hashes, and a cache of them that survives restarts
scan      folders -> entries; one entry -> `ModelInfo`
embeddings the words that stand for embeddings in prompts, for one checkpoint
lookup    a name, title, stem or hash -> an entry
styles    `StyleBook`: styles.csv, read and written in place
wildcards `WildcardFolder`: the text files behind `__name__`
catalog   `Library`: all of it together, with the background hasher
"""

from studio.library.catalog import Library
from studio.library.header import read_header
from studio.library.scan import PICKLES, SAFE, find_models

__all__ = ["PICKLES", "SAFE", "Library", "find_models", "read_header"]
