# A site's captures put together: connections followed across files, requests matched with responses.
# Needs: the working folders of all captures of the site. Makes: a part of `packets`, `requests` and `connections` per shard, and the
# notebook's bytes in the rows and order of `packets`.


rule merge_site:
    """Follow one shard of a site's connections over all of its captures."""
    input:
        captures=folders_of_site,
    output:
        packets="results/packets/experiment={experiment}/site={site}/part-{part}.parquet",
        requests="results/requests/experiment={experiment}/site={site}/part-{part}.parquet",
        connections="results/connections/experiment={experiment}/site={site}/part-{part}.parquet",
        notebook="results/intermediate/merged/{experiment}/{site}/part-{part}.parquet",
    log:
        "results/logs/merge_site/{experiment}/{site}/part-{part}.log",
    benchmark:
        "results/benchmarks/merge_site/{experiment}/{site}/part-{part}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=merge_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        site=merge_settings,
        code=code("merge_site.py"),
    message:
        "merge_site {wildcards.experiment}/{wildcards.site}/part-{wildcards.part}"
    script:
        "../scripts/merge_site.py"
