# What needs several sites of an experiment.
# Needs: what the merges of its sites learned. Makes: `topics`.


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
