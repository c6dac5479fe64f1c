"""What the command lines share: data and points from words, answers, estimates of time, options, one way to end."""

from .estimate import announce, in_words, seconds_of_a_row
from .options import data_of, parse_options, parsed
from .output import as_json, as_table, no_empty_folder, plain, suffixed, writable
from .point_files import read_point
from .sheets import Tile, save_sheet

__all__ = [
    "Tile",
    "announce",
    "as_json",
    "as_table",
    "data_of",
    "in_words",
    "no_empty_folder",
    "parse_options",
    "parsed",
    "plain",
    "read_point",
    "save_sheet",
    "seconds_of_a_row",
    "suffixed",
    "writable",
]
