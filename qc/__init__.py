"""Quality-control rules: functions over an annotation, registered by name."""
