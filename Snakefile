# From packet captures to a report. The data's way is in docs/architecture.md, every key of the configuration in config/README.md.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

# A configuration given with --configfile counts alone; without one the shipped example runs.
SHIPPED = "experiments" not in config and not workflow.overwrite_configfiles
if SHIPPED:

    configfile: Path(workflow.current_basedir.get_path_or_uri(secret_free=False)) / "config" / "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/experiment.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/excerpts.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/costs.smk"
include: "workflow/rules/doctor.smk"
include: "workflow/rules/bundle.smk"


rule all:
    """The report with its figures, and every data set behind it."""
    input:
        report=REPORT,
        figures=FIGURES,
        metrics="results/metrics.csv",
        comparisons="results/comparisons/comparisons.parquet",
        sites="results/sites/sites.parquet",
        data_sets=data_sets(),
    localrule: True
    message:
        "all"


onstart:
    print(inventory(), flush=True)
    begin_results()
    show_progress()


onsuccess:
    print(whereabouts(), flush=True)


onerror:
    print(next_steps(), flush=True)
