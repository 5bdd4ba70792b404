"""Names of files and folders, by AUTOMATIC1111's patterns and always legal. Pure: nothing here touches the disk.

facts       what a name may tell of a picture
tags        `[seed]`, `[prompt_words]` ...: one row each
pattern     a pattern and facts -> text
sanitise    text -> a part of a name, and a name that every system takes
place       settings and facts -> folders, running number, file name
"""

from studio.naming.facts import PictureFacts, picture_facts
from studio.naming.pattern import expand
from studio.naming.place import ZIP_PATTERN, file_name, folder_names, next_number, picture_decoration
from studio.naming.sanitise import legal_name, sanitise
from studio.naming.tags import TAGS

__all__ = [
    "TAGS",
    "ZIP_PATTERN",
    "PictureFacts",
    "expand",
    "file_name",
    "folder_names",
    "legal_name",
    "next_number",
    "picture_decoration",
    "picture_facts",
    "sanitise",
]
