#!/bin/sh
# The entry of the container: mtdlr's command line; with `python` as the first word, the container's Python.
[ "$1" = python ] && shift && exec /opt/mtdlr/bin/python "$@"
exec /opt/mtdlr/bin/mtdlr "$@"
