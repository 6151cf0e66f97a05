#!/bin/sh
# The entry of the container: mtdlr's command line; with `python` as the first word, the container's Python.
# numba uses a folder of compiled loops only where it may write. The loops that the image holds are copied to such a place.
loops="${TMPDIR:-/tmp}/mtdlr-loops-$(id -u)"
mkdir -p "$loops" && cp -r /opt/mtdlr/loops/. "$loops" && export NUMBA_CACHE_DIR="$loops"
[ "$1" = python ] && shift && exec /opt/mtdlr/bin/python "$@"
exec /opt/mtdlr/bin/mtdlr "$@"
