"""The lasting store of designs with their evidence: once a design is found, it can be used for ever."""
