"""Jobs: pure states, the table that is the queue, the engine that executes, the worker process."""
