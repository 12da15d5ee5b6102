# Figures: the window and the time zone are applied here and nowhere before.
# Needs: the data sets of a site. Makes: its `metrics` and `series`; then `sites` and `metrics.csv` of all sites together.


rule compute_metrics:
    """The metrics of one site inside the window, and their course in time."""
    input:
        packets=site_parts("packets"),
        requests=site_parts("requests"),
        connections=site_parts("connections"),
        notebook=merged_of_site("part"),
        decryption=merged_of_site("decryption"),
    output:
        metrics="results/metrics/experiment={experiment}/site={site}/metrics.parquet",
        series="results/series/experiment={experiment}/site={site}/series.parquet",
    log:
        log_file("compute_metrics/{experiment}/{site}"),
    benchmark:
        benchmark_file("compute_metrics/{experiment}/{site}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=site_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        measure=measure_settings,
        code=code("compute_metrics.py"),
    message:
        "compute_metrics {wildcards.experiment}/{wildcards.site}"
    script:
        "../scripts/compute_metrics.py"


rule collect_sites:
    """One row per site with its configuration and its captures' facts, and all metrics in one table for spreadsheets."""
    input:
        captures=all_listed(),
        metrics=all_metrics(),
        connections=parts("connections"),
        learned=merged_of("topics", CONFIG.experiments.values()),
    output:
        sites=report(
            "results/sites/sites.parquet", caption="../report/sites.rst", category="Tables", labels={"what": "Sites", "format": "Parquet"}
        ),
        metrics_csv=report(
            "results/metrics.csv", caption="../report/metrics.rst", category="Tables", labels={"what": "Metrics", "format": "CSV"}
        ),
    log:
        log_file("collect_sites"),
    benchmark:
        benchmark_file("collect_sites")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sites=sites_table(),
        code=code("collect_sites.py"),
    message:
        "collect_sites"
    script:
        "../scripts/collect_sites.py"
