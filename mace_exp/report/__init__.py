"""Reports from run folders: a page per run, a page per sweep, a table in the terminal."""
