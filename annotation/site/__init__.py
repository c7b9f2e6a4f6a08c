"""On the import path of the Label Studio server, whose Python has none of our packages: what it needs of us."""
