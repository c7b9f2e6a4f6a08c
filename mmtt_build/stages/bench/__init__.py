"""Each step, network and rule beside a naive twin, see `suite`. Empty, so that a worker imports what it needs only."""
