"""One study in progress: the runner with its votes on posts, the payload codec, the supervisor, and the simulation."""
