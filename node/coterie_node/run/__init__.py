"""One study in progress: the runner, the payload codec, the supervisor, and the simulation."""
