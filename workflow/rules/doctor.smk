# What stands in the way of a run, in seconds. Nothing else asks for this; the target is `doctor`.
# Needs: nothing but the first bytes of captures, which are no inputs: a broken or a remote one must not keep it from looking. Makes: lines on the terminal.


rule doctor:
    """Look at the installation, the folder and the first packets of captures. No output, so that it always looks anew."""
    log:
        # Never in what is published: it names captures and brokers, and whoever asks for it may hide names or not.
        "results/intermediate/logs/doctor.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        doctor=doctor_settings,
        interpreted=True,
        code=code("doctor.py"),
    message:
        "doctor"
    script:
        "../scripts/doctor.py"
