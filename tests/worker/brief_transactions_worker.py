"""A worker whose transactions may live for so long only: `brief_transactions_worker.py SECONDS`."""

from __future__ import annotations

import sys

from scripted import serve

import dgdm.session

dgdm.session.LONGEST_TRANSACTION = float(sys.argv[1])
serve()
