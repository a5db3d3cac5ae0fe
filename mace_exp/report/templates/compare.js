// The comparison needs no script of its own.
