# What needs several sites of an experiment.
# Needs: what the merges of its sites learned, and their data sets. Makes: `topics`, `paths`.


rule merge_experiment:
    """Names of topic ids, from whichever site tells them."""
    input:
        learned=learned_in_experiment,
    output:
        topics="results/topics/experiment={experiment}/topics.parquet",
    log:
        "results/logs/merge_experiment/{experiment}.log",
    benchmark:
        "results/benchmarks/merge_experiment/{experiment}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sites=experiment_settings,
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
        "results/logs/match_paths/{experiment}.log",
    benchmark:
        "results/benchmarks/match_paths/{experiment}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=pair_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sites=path_settings,
        code=code("match_paths.py"),
    message:
        "match_paths {wildcards.experiment}"
    script:
        "../scripts/match_paths.py"
