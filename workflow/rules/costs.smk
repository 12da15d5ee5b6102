# What a run cost. Nothing else asks for this; the target is `costs`.
# Needs: nothing but the benchmarks that jobs left. Makes: a table by rule, on the terminal and in `results/costs.csv`.


rule costs:
    """Time, processor time and memory by rule, of the last run of each job. No output, so that it always looks anew."""
    log:
        log_file("costs"),
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 500 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        costs=costs_settings,
        code=code("costs.py"),
    message:
        "costs"
    script:
        "../scripts/costs.py"
