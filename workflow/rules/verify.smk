# The user's proof that the native reader is right: packets decoded a second time by Wireshark. Nothing else asks for these; the target is `verify`.
# Needs: the captures, and tshark. Makes: what was found in each capture, and one table of agreements and differences.


rule verify_capture:
    """Decode a sample of a capture's packets by both decoders and compare them field by field."""
    input:
        capture=capture_file,
    output:
        found=f"{VERIFIED}/{{experiment}}/{{site}}/{{capture}}.json",
    log:
        log_file("verify_capture/{experiment}/{site}/{capture}"),
    benchmark:
        benchmark_file("verify_capture/{experiment}/{site}/{capture}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=verify_minutes,
    params:
        verify=verify_settings,
        capture=capture_name,
        names=hidden_names(),
        code=code("verify_capture.py"),
    message:
        "verify_capture {wildcards.experiment}/{wildcards.site}/{wildcards.capture}"
    script:
        "../scripts/verify_capture.py"


rule tabulate_differences:
    """Agreements and differences of all captures, by site and field."""
    input:
        found=verified_captures(),
    output:
        differences=VERIFICATION,
    log:
        log_file("tabulate_differences"),
    benchmark:
        benchmark_file("tabulate_differences")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        sites=verified_sites(),
        code=code("tabulate_differences.py"),
    message:
        "tabulate_differences"
    script:
        "../scripts/tabulate_differences.py"


rule verify:
    """Fail where a difference is not explained; the table stands all the same."""
    input:
        differences=VERIFICATION,
    log:
        log_file("verify"),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code("verify.py"),
    message:
        "verify"
    script:
        "../scripts/verify.py"
