"""What happened between the sites of an experiment: records on their way, and connections that were captured at both ends. Knows nothing of files."""
