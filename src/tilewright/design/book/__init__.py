"""The lasting store of designs with their evidence: once a design is found, it can be used for ever.

key = Key.of(kernel, facts, threads=2)          # kernel: traced; facts: exact sizes, layouts, machine
book = Book.open()                              # never fails
record = book.get(key)                          # verified on this host and legal, or None
book.untrusted(key)                             # hints on a miss: verify and measure them, then book.trust(key, r)
book.add_trials(key, run, trials, seed=seed)    # as a search goes on; book.trials(key, run) resumes it
book.quarantine(key, design, "wrong", why)      # book.quarantined(key): never tried again
book.put(Record.of(key, result, seed))
"""
