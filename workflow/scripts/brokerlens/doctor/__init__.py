"""What `snakemake doctor` looks at: the installation, the place it runs in, and the first packets of captures."""
