"""The run folder: results named by their recipe, work under way, what is published, and how far a run is."""

from mtdlr.store.files import (
    PUBLISHED,
    digest,
    disk_full,
    disk_problem,
    file_hash,
    publish,
    require_writable,
    room_on,
    strict_json,
    write_atomic,
)
from mtdlr.store.hold import open_store, take_lock
from mtdlr.store.index import Lines, stamp_of_paths
from mtdlr.store.objects import Store, verify
from mtdlr.store.recipe import STAGES, Recipe, source_of, without_paths
from mtdlr.store.scratch import release
from mtdlr.store.status import TRAINING, duration, run_status, write_plan

__all__ = ["PUBLISHED", "STAGES", "TRAINING", "Lines", "Recipe", "Store", "digest", "disk_full", "disk_problem",
           "duration", "file_hash", "open_store", "publish", "release", "require_writable", "room_on", "run_status",
           "source_of", "stamp_of_paths", "strict_json", "take_lock", "verify", "without_paths", "write_atomic",
           "write_plan"]
