"""Networks that several methods share: plain torch, named as in the official state dicts."""
