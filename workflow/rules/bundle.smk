# One zip for a paper's supplement. Nothing else asks for these; the target is `bundle`.
# Needs: report, figures, tables, and every capture, to be read once for its checksum. Makes: results/bundle.zip, described as an RO-Crate.


rule hash_capture:
    """Size and SHA-256 of a capture: a job for each, so that a changed one alone is read again."""
    input:
        capture=capture_file,
    output:
        checksum="results/intermediate/checksums/{experiment}/{site}/{capture}.json",
    log:
        log_file("hash_capture/{experiment}/{site}/{capture}"),
    benchmark:
        benchmark_file("hash_capture/{experiment}/{site}/{capture}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 500 * attempt,
        runtime=split_minutes,
    params:
        capture=capture_size,
        interpreted=True,
        code=code("hash_capture.py"),
    message:
        "hash_capture {wildcards.experiment}/{wildcards.site}/{wildcards.capture}"
    script:
        "../scripts/hash_capture.py"


rule bundle:
    """Report, figures, tables, configuration, versions and checksums in one zip. Of working files nothing."""
    input:
        report=REPORT,
        specifications="results/report/figures.json",
        figures=FIGURES,
        metrics="results/metrics.csv",
        comparisons="results/comparisons/comparisons.parquet",
        sites="results/sites/sites.parquet",
        checksums=all_checksums(),
    output:
        bundle=BUNDLE,
    log:
        log_file("bundle"),
    benchmark:
        benchmark_file("bundle")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        bundle=bundle_settings,
        interpreted=True,
        code=code("bundle.py"),
    message:
        "bundle"
    script:
        "../scripts/bundle.py"
