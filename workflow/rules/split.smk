# A capture's packets to or from the site's brokers, as rows of header fields, and the payload that Kafka's frames need.
# Needs: one capture. Makes: its working folder. The window is not applied here: changing it must not split anything again.


rule split_capture:
    """Read one capture and keep what concerns the site's brokers."""
    input:
        capture=capture_file,
    output:
        folder=directory("results/intermediate/captures/{experiment}/{site}/{capture}"),
    log:
        "results/logs/split_capture/{experiment}/{site}/{capture}.log",
    benchmark:
        "results/benchmarks/split_capture/{experiment}/{site}/{capture}.tsv"
    conda:
        "../../environment.yml"
    threads: split_threads
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=split_minutes,
    params:
        split=split_settings,
        size=capture_size,
        code=code("split_capture.py"),
    message:
        "split_capture {wildcards.experiment}/{wildcards.site}/{wildcards.capture}"
    script:
        "../scripts/split_capture.py"
