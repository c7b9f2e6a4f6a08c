"""The command line: parse, one call, print what came of it. No logic and no heavy import."""
