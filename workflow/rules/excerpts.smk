# From a figure to its packets.
# Needs: the data sets of a site. Makes: `cases`, which the report shows; and, where `excerpts` is asked for, a small capture file per case, for which it needs the
# captures that hold their packets.


rule choose_cases:
    """The slowest requests, the resets and the worst losses of one site inside the window, and where their packets are."""
    input:
        packets=site_parts("packets"),
        requests=site_parts("requests"),
        connections=site_parts("connections"),
    output:
        cases="results/cases/experiment={experiment}/site={site}/cases.parquet",
    log:
        log_file("choose_cases/{experiment}/{site}"),
    benchmark:
        benchmark_file("choose_cases/{experiment}/{site}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=site_memory,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        choose=case_settings,
        code=code("choose_cases.py"),
    message:
        "choose_cases {wildcards.experiment}/{wildcards.site}"
    script:
        "../scripts/choose_cases.py"


checkpoint list_excerpts:
    """Which captures hold the cases' packets: only those are inputs of the excerpts, of thousands a few."""
    input:
        cases=per_site("cases"),
    output:
        captures="results/intermediate/excerpts/captures.json",
    log:
        log_file("list_excerpts"),
    benchmark:
        benchmark_file("list_excerpts")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        sites=[f"{experiment.name}/{site.name}" for experiment, site in all_sites()],
        code=code("list_excerpts.py"),
    message:
        "list_excerpts"
    script:
        "../scripts/list_excerpts.py"


rule write_excerpts:
    """The packets around each case of a site, copied from the captures, a file per case."""
    input:
        cases="results/cases/experiment={experiment}/site={site}/cases.parquet",
        packets=site_parts("packets"),
        listed="results/intermediate/excerpts/captures.json",
        captures=captures_with_cases,
    output:
        folder=directory("results/excerpts/{experiment}/{site}"),
    log:
        log_file("write_excerpts/{experiment}/{site}"),
    benchmark:
        benchmark_file("write_excerpts/{experiment}/{site}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=code("write_excerpts.py"),
    message:
        "write_excerpts {wildcards.experiment}/{wildcards.site}"
    script:
        "../scripts/write_excerpts.py"


rule excerpts:
    """The packets behind the report's worst figures, as small captures to open in Wireshark."""
    input:
        folders=all_excerpts,
    localrule: True
    message:
        "excerpts"
