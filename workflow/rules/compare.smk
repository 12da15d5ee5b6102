# Sites of an experiment against each other, a site across experiments, everything against the baseline.
# Needs: the data sets of all sites. Makes: `comparisons`.


rule compare:
    """Effect sizes and intervals of every comparison."""
    input:
        sites="results/sites/sites.parquet",
        requests=parts("requests"),
        packets=parts("packets"),
        connections=parts("connections"),
        metrics=per_site("metrics"),
    output:
        comparisons=report(
            "results/comparisons/comparisons.parquet",
            caption="../report/comparisons.rst",
            category="Tables",
            labels={"what": "Comparisons", "format": "Parquet"},
        ),
    log:
        log_file("compare"),
    benchmark:
        benchmark_file("compare")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=compare_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        compare=compare_settings(),
        code=code("compare.py"),
    message:
        "compare"
    script:
        "../scripts/compare.py"
