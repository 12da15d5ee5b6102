# What people read.
# Needs: everything before. Makes: one HTML file that opens without a network, and its figures as files.


rule report:
    """The report: one file with its tables, charts and texts."""
    input:
        sites="results/sites/sites.parquet",
        comparisons="results/comparisons/comparisons.parquet",
        metrics=all_metrics(),
        series=per_site("series"),
        requests=parts("requests"),
        packets=parts("packets"),
        connections=parts("connections"),
        topics=per_experiment("topics"),
        paths=per_experiment("paths"),
        cases=per_site("cases"),
        captures=all_listed(),
    output:
        report=report(
            "results/report/index.html", caption="../report/report.rst", category="Report", labels={"what": "The report", "format": "HTML"}
        ),
        specifications="results/report/figures.json",
    log:
        log_file("report"),
    benchmark:
        benchmark_file("report")
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


rule draw_figures:
    """The report's figures for papers, SVG and PNG: drawn after it, because fifty sites take longer to draw than to report."""
    input:
        specifications="results/report/figures.json",
    output:
        figures=report(
            directory(FIGURES),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "format": "SVG"},
        ),
    log:
        log_file("draw_figures"),
    benchmark:
        benchmark_file("draw_figures")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code("draw_figures.py"),
    message:
        "draw_figures"
    script:
        "../scripts/draw_figures.py"
