#!/usr/bin/env bash
# The base in between (chapter 12), from pretraining to its runs, on one GPU: see tools/mid.py.
#
#   bash tools/mid.sh
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1
exec "${PYTHON:-python3}" -m tools.mid "$@"
