"""Label Studio's settings with the guard's middleware at their end, where the user is known."""

import os
from importlib import import_module

_STOCK = "label_studio.core.settings.label_studio"
_mine = os.environ["DJANGO_SETTINGS_MODULE"]
# The stock settings read django.conf.settings while they are imported; that must not lead back to here.
os.environ["DJANGO_SETTINGS_MODULE"] = _STOCK
globals().update({name: value for name, value in vars(import_module(_STOCK)).items() if name.isupper()})
os.environ["DJANGO_SETTINGS_MODULE"] = _mine

MIDDLEWARE = [*globals()["MIDDLEWARE"], "mmtt_guard.middleware.Guard"]
