"""The report of an audit: one HTML file that needs no server, no network and no script to be read."""
