# A capture's packets to or from the site's brokers, as rows of header fields, and the payload that Kafka's frames need.
# Needs: one capture. Makes: its working folder, and of all of a site's a list. The window is not applied here: changing it must not split anything again.


rule split_capture:
    """Read one capture and keep what concerns the site's brokers."""
    input:
        capture=capture_file,
    output:
        folder=directory("results/intermediate/captures/{experiment}/{site}/{capture}"),
    log:
        log_file("split_capture/{experiment}/{site}/{capture}"),
    benchmark:
        benchmark_file("split_capture/{experiment}/{site}/{capture}")
    conda:
        "../../environment.yml"
    threads: split_threads
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=split_minutes,
    params:
        split=split_settings,
        code=code("split_capture.py"),
    message:
        "split_capture {wildcards.experiment}/{wildcards.site}/{wildcards.capture}"
    script:
        "../scripts/split_capture.py"


rule list_captures:
    """A site's captures in one file, for all that would otherwise ask for every working folder: its shards, the table of sites, the report."""
    input:
        folders=folders_of_site,
    output:
        captures="results/intermediate/captures/{experiment}/{site}/+captures.json",
    log:
        log_file("list_captures/{experiment}/{site}"),
    benchmark:
        benchmark_file("list_captures/{experiment}/{site}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        split=list_settings,
        names=hidden_names(),
        paths=paths_of_captures,
        code=code("list_captures.py"),
    message:
        "list_captures {wildcards.experiment}/{wildcards.site}"
    script:
        "../scripts/list_captures.py"
