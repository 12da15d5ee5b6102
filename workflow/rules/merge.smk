# A site's captures put together: connections followed across files, requests matched with responses.
# Needs: the list of the site's captures, and their working folders. Makes: a part of `packets`, `connections` and `requests` per shard; and in working files the
# requests as far as one shard knows them, what it learned of topics, the notebook's bytes in the rows and order of `packets`, the record batches produced and fetched, and what became of TLS.
# A site with `tls_keylog` needs its keys and tshark, too.


rule merge_site:
    """Follow one shard of a site's connections over all of its captures."""
    input:
        captures=captures_of_site,
        key_sources=key_sources,
    output:
        packets="results/packets/experiment={experiment}/site={site}/part-{part}.parquet",
        connections="results/connections/experiment={experiment}/site={site}/part-{part}.parquet",
        requests="results/intermediate/merged/{experiment}/{site}/requests-{part}.parquet",
        topics="results/intermediate/merged/{experiment}/{site}/topics-{part}.parquet",
        notebook="results/intermediate/merged/{experiment}/{site}/part-{part}.parquet",
        produced="results/intermediate/merged/{experiment}/{site}/produced-{part}.parquet",
        fetched="results/intermediate/merged/{experiment}/{site}/fetched-{part}.parquet",
        decryption="results/intermediate/merged/{experiment}/{site}/decryption-{part}.parquet",
    log:
        log_file("merge_site/{experiment}/{site}/part-{part}"),
    benchmark:
        benchmark_file("merge_site/{experiment}/{site}/part-{part}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=merge_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        site=merge_settings,
        key_log=key_log_size,
        code=code("merge_site.py"),
    message:
        "merge_site {wildcards.experiment}/{wildcards.site}/part-{wildcards.part}"
    script:
        "../scripts/merge_site.py"


rule complete_requests:
    """Complete a shard's requests with what the other connections of the site tell: names of topics, fetch sessions, batches sent again."""
    input:
        provisional=merged_of_site("requests"),
        topics=merged_of_site("topics"),
    output:
        requests="results/requests/experiment={experiment}/site={site}/part-{part}.parquet",
    log:
        log_file("complete_requests/{experiment}/{site}/part-{part}"),
    benchmark:
        benchmark_file("complete_requests/{experiment}/{site}/part-{part}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=merge_memory,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        topic_ids=topic_ids,
        code=code("complete_requests.py"),
    message:
        "complete_requests {wildcards.experiment}/{wildcards.site}/part-{wildcards.part}"
    script:
        "../scripts/complete_requests.py"
