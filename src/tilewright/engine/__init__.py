"""Running a model: requests, scheduling, sampling, generation."""
