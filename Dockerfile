# The workflow with everything that it needs: docs/cluster.md, "Containers".
FROM python:3.13-slim-bookworm

# Snakemake calls bash, and Wireshark's tshark is what `decoder: wireshark`, `tls_keylog` and `snakemake verify` ask for.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash tshark \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/brokerlens
COPY requirements.in requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt

COPY Snakefile environment.yml ./
COPY config config
COPY profiles/default profiles/default
COPY resources resources
COPY workflow workflow
# Kernels compiled once, for processors like the builder's; on others they are compiled at the first run, whoever runs it.
RUN PYTHONPATH=workflow/scripts python -c 'from brokerlens import job; job.compile_kernels_once()' \
    && chmod -R a+rwX .numba_cache

# Results and Snakemake's own files go where the container is started from: `--volume "$PWD:/data"`.
WORKDIR /data
ENTRYPOINT ["snakemake", "--snakefile", "/opt/brokerlens/Snakefile"]
CMD ["--cores", "all", "--configfile", "my.yaml"]
