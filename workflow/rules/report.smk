# What people read.
# Needs: everything before. Makes: one HTML file that opens without a network.


rule report:
    """The report: one file with its tables, charts and texts."""
    input:
        sites="results/sites/sites.parquet",
        comparisons="results/comparisons/comparisons.parquet",
        metrics=per_site("metrics"),
        series=per_site("series"),
        requests=parts("requests"),
        packets=parts("packets"),
        connections=parts("connections"),
        topics=topics(),
        facts=working_folders(),
    output:
        report="results/report/index.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=total_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        report=report_settings(),
        code=code("report.py"),
    message:
        "report"
    script:
        "../scripts/report.py"
