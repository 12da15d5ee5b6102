"""What a bundle for a paper's supplement holds beside results: the configuration as may be published, and the description of it all as an RO-Crate."""
