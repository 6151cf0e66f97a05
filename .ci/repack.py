"""Write a source archive again with one owner and one time for every file, so that it is the same bytes anywhere."""

import gzip
import os
import sys
import tarfile
from io import BytesIO
from pathlib import Path

path, moment = Path(sys.argv[1]), int(os.environ["SOURCE_DATE_EPOCH"])
packed = BytesIO()
with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
    for member in sorted(old.getmembers(), key=lambda one: one.name):
        member.mtime, member.uid, member.gid, member.uname, member.gname = moment, 0, 0, "", ""
        member.pax_headers = {}
        new.addfile(member, old.extractfile(member) if member.isfile() else None)
path.write_bytes(gzip.compress(packed.getvalue(), mtime=moment))
