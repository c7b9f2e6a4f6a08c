"""Part splice without weights: single features of a donor, aligned one by one and blended onto the base."""
