# What needs several sites of an experiment.
# Needs: what the merges of its sites learned, the record batches that they saw, and their data sets. Makes: `topics`, `paths`, `deliveries`; of these the metrics of
# routes.


rule merge_experiment:
    """Names of topic ids, from whichever site tells them."""
    input:
        learned=merged_of_experiment("topics"),
    output:
        topics="results/topics/experiment={experiment}/topics.parquet",
    log:
        log_file("merge_experiment/{experiment}"),
    benchmark:
        benchmark_file("merge_experiment/{experiment}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sites=settings_of_sites("cluster", "topic_ids"),
        code=code("merge_experiment.py"),
    message:
        "merge_experiment {wildcards.experiment}"
    script:
        "../scripts/merge_experiment.py"


rule match_paths:
    """Connections captured at both ends: what became of each packet between the taps, and the clocks by that."""
    input:
        packets=parts_in_experiment("packets"),
        connections=parts_in_experiment("connections"),
        requests=parts_in_experiment("requests"),
    output:
        paths="results/paths/experiment={experiment}/paths.parquet",
        packets="results/intermediate/paths/{experiment}/packets.parquet",
        requests="results/intermediate/paths/{experiment}/requests.parquet",
    log:
        log_file("match_paths/{experiment}"),
    benchmark:
        benchmark_file("match_paths/{experiment}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=pair_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sites=settings_of_sites("tap", "clock_offset_ms"),
        code=code("match_paths.py"),
    message:
        "match_paths {wildcards.experiment}"
    script:
        "../scripts/match_paths.py"


rule join_deliveries:
    """Records from producer to consumer, by cluster, topic, partition and offsets."""
    input:
        produced=merged_of_experiment("produced"),
        fetched=merged_of_experiment("fetched"),
        learned=merged_of_experiment("topics"),
        topics="results/topics/experiment={experiment}/topics.parquet",
        paths="results/paths/experiment={experiment}/paths.parquet",
    output:
        deliveries="results/deliveries/experiment={experiment}/part-0000.parquet",
    log:
        log_file("join_deliveries/{experiment}"),
    benchmark:
        benchmark_file("join_deliveries/{experiment}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=experiment_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sites=settings_of_sites("cluster", "clock_offset_ms"),
        code=code("join_deliveries.py"),
    message:
        "join_deliveries {wildcards.experiment}"
    script:
        "../scripts/join_deliveries.py"


rule measure_routes:
    """How long records took to a site, by the site that they come from, and the ways of its clients' connections captured at both ends."""
    input:
        deliveries=["results/deliveries/experiment={experiment}/part-0000.parquet"],
        packets="results/intermediate/paths/{experiment}/packets.parquet",
        requests="results/intermediate/paths/{experiment}/requests.parquet",
    output:
        routes="results/metrics/experiment={experiment}/site={site}/routes.parquet",
    log:
        log_file("measure_routes/{experiment}/{site}"),
    benchmark:
        benchmark_file("measure_routes/{experiment}/{site}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=experiment_memory,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        measure=route_settings,
        code=code("measure_routes.py"),
    message:
        "measure_routes {wildcards.experiment}/{wildcards.site}"
    script:
        "../scripts/measure_routes.py"
