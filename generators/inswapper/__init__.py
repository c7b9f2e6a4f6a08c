"""Face swap by a network: the donor's identity, as an embedding, in the base's own expression and light."""
