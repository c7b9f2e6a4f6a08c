"""Settings of our Label Studio server: those that MMTT_SETTINGS names, or the package's own, with sqlite tuned.

By default sqlite answers writers that meet with "database is locked": a transaction that begins by reading cannot
become a writing one. IMMEDIATE makes it wait its turn from the start, and with WAL nobody who reads waits for anybody.
"""

import os
from importlib import import_module

_base = os.environ.get("MMTT_SETTINGS", "label_studio.core.settings.label_studio")
_mine = os.environ["DJANGO_SETTINGS_MODULE"]
# The package's settings read django.conf.settings while they are imported; that must not lead back to here.
os.environ["DJANGO_SETTINGS_MODULE"] = _base
_settings = {name: value for name, value in vars(import_module(_base)).items() if name.isupper()}
os.environ["DJANGO_SETTINGS_MODULE"] = _mine

_database = _settings["DATABASES"]["default"]
if _database["ENGINE"].endswith("sqlite3"):
    _database["OPTIONS"] = {
        "timeout": 30,  # seconds
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
# A line per request would hold the invitation links, and grow without end.
_settings["LOGGING"]["loggers"]["django.server"] = {"handlers": ["console"], "level": "ERROR", "propagate": False}
globals().update(_settings)
