# Functions only: the configuration, and what the rules ask it. Settings reach a job through `params`, as one plain dictionary per concern that
# holds the least that the job depends on, because a change of it is what makes the job run again. Functions for `params` take wildcards only:
# Snakemake does not track the others.
import gc
import hashlib
import inspect
import json
import os
import sys
from pathlib import Path

from snakemake.logging import logger

# What Snakemake knows of its jobs it keeps to the end: looking through all of it for garbage again and again took a quarter of the start at 10,000 captures.
gc.freeze()
gc.set_threshold(1_000_000, 20, 100)

# Beside this file: `workflow.basedir` is another workflow's where this one is used as a module.
SCRIPTS = Path(workflow.current_basedir.get_path_or_uri(secret_free=False)).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from snakemake.common import overwrite_function_params

from brokerlens import array_task, closure, config as configuration, place, progress, pseudonyms, published
from brokerlens.bundle.settings import publishable
from brokerlens.errors import LONGEST_MESSAGE, UserError, inert
from brokerlens.remote import is_remote


def s3_client():
    """The client of Snakemake's S3 plugin, with the settings that it got."""
    return workflow.storage_registry.register_storage("s3").s3c.meta.client


array_task.become_own_job(sys.argv)
try:
    CONFIG = configuration.read(config, s3_client)
    is_new_secret = CONFIG.anonymize and not os.path.lexists(CONFIG.secret_file)
    HIDE = pseudonyms.Pseudonyms(pseudonyms.read_secret(CONFIG.secret_file)) if CONFIG.anonymize else pseudonyms.AS_THEY_ARE
    if is_new_secret:
        print(
            f"anonymize: a new secret in {CONFIG.secret_file}; keep it, share it with nobody (docs/sharing.md)", file=sys.stderr, flush=True
        )
except UserError as fault:
    # A WorkflowError would say at which line of this file it was raised, which helps nobody.
    example = " No configuration was given (--configfile my.yaml), so this is the shipped example's, which runs in the workflow's folder."
    sys.exit(f"Configuration error in {inert(str(fault), LONGEST_MESSAGE)}{example if SHIPPED else ''}")
try:
    place.check_writable(Path.cwd())
except UserError as fault:
    sys.exit(f"Nothing can be written: {fault}")

# As outputs may show it: what reads captures and working files needs the real one, everything behind only this.
SHOWN = configuration.shown(CONFIG, HIDE)
RESULTS = "results"
# For the owner only where names are hidden: they stand in messages and in names of files.
OF_JOBS = f"{RESULTS}/intermediate" if CONFIG.anonymize else RESULTS
REPORT = "results/report/index.html"
FIGURES = "results/report/figures"
VERIFICATION = "results/verify/differences.csv"
VERIFIED = f"{OF_JOBS}/verify/captures"
BUNDLE = "results/bundle.zip"
METRICS = "results/metrics.csv"


def placed(path):
    """Where a result lies. Snakemake puts a module's `prefix` before inputs and outputs by itself; this is for all else, and only while rules are read."""
    return workflow.modifier.path_modifier.replace_prefix(path)


PLACED = placed(RESULTS)
DIFFERENCES = placed(VERIFICATION)
BENCHMARKS = placed(f"{OF_JOBS}/benchmarks")
COSTS = placed("results/costs.csv")
# One look-up per job, however many captures there are.
CAPTURES = {
    (experiment.name, site.name, capture.key): capture
    for experiment in CONFIG.experiments.values()
    for site in experiment.sites.values()
    for capture in site.captures
}
ALL_BYTES = sum(capture.bytes for capture in CAPTURES.values())
WATCHED = []  # who watches the run, once it has begun
# Minutes for the capture that takes longest, on a slow machine: bytes by what a decoder reads in a minute.
SLOWEST_SPLIT = max(
    capture.bytes / {"native": 5e8, "wireshark": 5e7}[site.decoder]
    for experiment in CONFIG.experiments.values()
    for site in experiment.sites.values()
    for capture in site.captures
)


wildcard_constraints:
    experiment="[A-Za-z][A-Za-z0-9._-]*",
    site="[A-Za-z][A-Za-z0-9._-]*",
    capture="[A-Za-z0-9._%-]+",
    part="[0-9]{4}",


def code(script):
    """A digest of the script and of all of our modules that it imports: an edit of any of them runs the rule's jobs again, a new date does not."""
    return f"code:{closure.code_digest(SCRIPTS / script)}"


def log_file(name):
    """Where a job's log goes."""
    return f"{OF_JOBS}/logs/{name}.log"


def benchmark_file(name):
    """Where it is noted what a job took."""
    return f"{OF_JOBS}/benchmarks/{name}.tsv"


def hidden_names():
    """What a job needs to hide names: where the secret is, and its digest, by which a job runs again. Never the secret itself, since Snakemake notes params down."""
    return {"secret_file": CONFIG.secret_file, "digest": HIDE.digest} if HIDE else None


def called_often(function):
    """Marks a function of wildcards that is asked once a capture, so that Snakemake need not look at its signature several times a job."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def site_of(wildcards):
    """The site that a job is about."""
    return CONFIG.experiments[wildcards.experiment].sites[wildcards.site]


def shown_site_of(wildcards):
    """The site that a job is about, as outputs may show it."""
    return SHOWN.experiments[wildcards.experiment].sites[wildcards.site]


def all_sites(config=CONFIG):
    """Every experiment with every one of its sites, in the order of the configuration."""
    return [(experiment, site) for experiment in config.experiments.values() for site in experiment.sites.values()]


def working_folder(experiment, site, capture):
    """Where split_capture leaves what it found in a capture."""
    return f"results/intermediate/captures/{experiment}/{site}/{capture}"


def part_of(data_set, experiment, site, part):
    """One file of a data set that merge_site writes."""
    return f"results/{data_set}/experiment={experiment}/site={site}/part-{part}.parquet"


def parts(data_set):
    """All files of a data set that merge_site writes, in the order of experiments, sites and parts."""
    return [part_of(data_set, experiment.name, site.name, part) for experiment, site in all_sites() for part in site.parts]


def per_site(data_set, name=None):
    """All files of a data set that has one per site, called like it or otherwise, in the order of experiments and sites."""
    return [
        f"results/{data_set}/experiment={experiment.name}/site={site.name}/{name or data_set}.parquet" for experiment, site in all_sites()
    ]


def per_experiment(data_set, name=None):
    """All files of a data set that has one per experiment, called like it or otherwise, in the order of experiments."""
    return [f"results/{data_set}/experiment={experiment}/{name or data_set}.parquet" for experiment in CONFIG.experiments]


def all_metrics():
    """The metrics of all sites, and those of the routes to them."""
    return [*per_site("metrics"), *per_site("metrics", "routes")]


def listed(experiment, site):
    """What list_captures leaves of a site. The `+` keeps it apart from the folders of captures, beside which it lies so that it goes when they do."""
    return f"results/intermediate/captures/{experiment}/{site}/+captures.json"


def all_listed():
    """The lists of captures of all sites, in the order of experiments and sites."""
    return [listed(experiment.name, site.name) for experiment, site in all_sites()]


def data_sets():
    """What is published per site and experiment."""
    of_sites = [*parts("packets"), *parts("requests"), *parts("connections"), *all_metrics(), *per_site("series"), *per_site("cases")]
    return [*of_sites, *per_experiment("topics"), *per_experiment("paths"), *per_experiment("deliveries", "part-0000")]


# split_capture


@called_often
def capture_file(wildcards):
    """The capture that a working folder is made from."""
    return file_of(CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture])


def file_of(capture):
    """A capture as an input: one in a storage is fetched by Snakemake's plugin; one of this machine lies where it lies, whatever a module's prefix."""
    return storage.s3(capture.path) if is_remote(capture.path) else local(capture.path)


def size_of(capture):
    """Size and date of a capture: Snakemake alone would not notice one that was replaced by an older file."""
    return {"bytes": capture.bytes, "modified": capture.modified}


def split_minutes(wildcards, attempt):
    """Time limit by the largest capture of all: on a cluster all tasks of an array get that of the first, whichever it is."""
    return int(5 + SLOWEST_SPLIT) * attempt


def split_threads(wildcards):
    """Two for a capture that is larger than a core's share of all: it would still be read when the others are done. Otherwise a capture per core is faster.

    A cluster has no number of cores, and the jobs that run on it must get what they asked for: its profile says one.
    """
    size = CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture].bytes
    return 2 if size * (workflow.resource_settings.cores or 1) > ALL_BYTES else 1


@called_often
def split_settings(wildcards):
    """What the split of a capture depends on. In one dictionary: each further function costs a twentieth of the start at 10,000 captures."""
    return settings_of(site_of(wildcards), CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture])


def settings_of(site, capture):
    """The capture's name as people know it, its size, whose packets to keep, what reads them, and whether TLS is kept for the merge to decrypt."""
    return {
        "name": capture.name,
        "brokers": list(site.brokers),
        "decoder": site.decoder,
        "keep_tls": site.tls_keylog is not None,
        **size_of(capture),
    }


# list_captures


def folders_of_site(wildcards):
    """The working folders of a site's captures."""
    return [working_folder(wildcards.experiment, wildcards.site, capture.key) for capture in site_of(wildcards).captures]


def list_settings(wildcards):
    """What the splits of a site depend on: if one of them failed and left nothing, it is tried again even where later results are still there."""
    site = site_of(wildcards)
    return {"captures": {capture.key: settings_of(site, capture) for capture in site.captures}, "code": code("split_capture.py")}


def paths_of_captures(wildcards):
    """Where names are hidden, the paths of a site's captures by their working folders' names: no message may say them."""
    return {capture.key: capture.path for capture in site_of(wildcards).captures} if HIDE else None


# merge_site


def captures_of_site(wildcards):
    """The list of a site's captures. The merge reads their folders: as inputs of its own, for every shard, they would double the start at 10,000 captures."""
    return listed(wildcards.experiment, wildcards.site)


def key_sources(wildcards):
    """Where the keys of a site stand: the key log, or all of its captures in the order of their working folders; nothing without keys."""
    site = site_of(wildcards)
    match kind_of_keys(site):
        case "file":
            return [local(site.tls_keylog.path)]
        case "captures":
            return [file_of(capture) for capture in site.captures]
    return []


def kind_of_keys(site):
    """None, `file` or `captures`: where the keys stand is an input, and what they are nobody's business but the merge's."""
    return site.tls_keylog if site.tls_keylog in (None, "captures") else "file"


def key_log_size(wildcards):
    """Size and date of the key log, as of captures."""
    key_log = site_of(wildcards).tls_keylog
    return {"bytes": key_log.bytes, "modified": key_log.modified} if kind_of_keys(site_of(wildcards)) == "file" else None


def merge_settings(wildcards):
    """What the merge of a site depends on beside its captures."""
    site = site_of(wildcards)
    return {
        "brokers": list(site.brokers),
        "tap": site.tap,
        "shards": site.shards,
        "keys": kind_of_keys(site),
        "names": hidden_names(),
    }


def merged(what, experiment, site, part):
    """One of the working files that a shard of merge_site leaves for the stages behind it."""
    return f"results/intermediate/merged/{experiment}/{site}/{what}-{part}.parquet"


def merged_of_site(what):
    """An input function: these working files of all of a site's shards, in order."""

    def shards(wildcards):
        return [merged(what, wildcards.experiment, wildcards.site, part) for part in site_of(wildcards).parts]

    return shards


def merge_memory(wildcards, attempt):
    """Megabytes for one shard of a site: its share of the captures, with room for what is made of it; with keys for payload, plaintext and tshark, too."""
    site = site_of(wildcards)
    base, times = (1000, 2) if site.tls_keylog is None else (1600, 5)
    return int((base + times * site.unpacked / 1e6 / site.shards) * attempt)


# complete_requests, merge_experiment, match_paths, join_deliveries, measure_routes


def topic_ids(wildcards):
    """Names of topic ids by the configuration."""
    return dict(shown_site_of(wildcards).topic_ids)


def merged_of(what, experiments):
    """These working files of all shards of these experiments' sites, in order."""
    return [
        merged(what, experiment.name, site.name, part)
        for experiment in experiments
        for site in experiment.sites.values()
        for part in site.parts
    ]


def merged_of_experiment(what):
    """An input function: these working files of all shards of an experiment's sites, in order."""

    def shards(wildcards):
        return merged_of(what, [CONFIG.experiments[wildcards.experiment]])

    return shards


def settings_of_sites(*names):
    """A function for `params`: what an experiment's sites have to say about these."""

    def settings(wildcards):
        sites = SHOWN.experiments[wildcards.experiment].sites.values()
        return [{"site": site.name, **{name: getattr(site, name) for name in names}} for site in sites]

    return settings


def parts_in_experiment(data_set):
    """An input function: the files of all of an experiment's sites of a data set that merge_site writes."""

    def parts_of_sites(wildcards):
        sites = CONFIG.experiments[wildcards.experiment].sites.values()
        return [part_of(data_set, wildcards.experiment, site.name, part) for site in sites for part in site.parts]

    return parts_of_sites


def pair_memory(wildcards, attempt):
    """Megabytes for what reads the packets of two of an experiment's sites at a time."""
    sizes = sorted(site.unpacked for site in CONFIG.experiments[wildcards.experiment].sites.values())
    return int((700 + 4 * sum(sizes[-2:]) / 1e6) * attempt)


def route_settings(wildcards):
    """What the metrics of routes to a site depend on beside the deliveries."""
    return {"site": wildcards.site, "window": window_of(CONFIG.experiments[wildcards.experiment])}


def experiment_memory(wildcards, attempt):
    """Megabytes for what reads something of all of an experiment's sites."""
    return int((1000 + 2 * sum(site.unpacked for site in CONFIG.experiments[wildcards.experiment].sites.values()) / 1e6) * attempt)


# compute_metrics


def site_parts(data_set):
    """An input function: a site's files of a data set that merge_site writes."""

    def parts_of_site(wildcards):
        return [part_of(data_set, wildcards.experiment, wildcards.site, part) for part in site_of(wildcards).parts]

    return parts_of_site


def measure_settings(wildcards):
    """What a site's metrics depend on beside its data sets."""
    experiment, site = CONFIG.experiments[wildcards.experiment], shown_site_of(wildcards)
    return {
        "window": window_of(experiment),
        "brokers": list(site.brokers),
        "tap": site.tap,
        "share_over_ms": CONFIG.report.share_over_ms,
    }


def window_of(experiment):
    """First and last instant, nanoseconds since 1970 UTC, both included; None where it is open."""
    return {"start": experiment.window.start, "end": experiment.window.end}


def site_memory(wildcards, attempt):
    """Megabytes for what reads all of a site's data sets: some forty bytes of each packet, which take eighty or more in a capture."""
    return int((700 + 0.5 * site_of(wildcards).unpacked / 1e6) * attempt)


# collect_sites, compare, report


def sites_table():
    """The configuration's part of the data set `sites`."""
    return [
        {
            "experiment": experiment.name,
            "site": site.name,
            "condition": experiment.condition,
            "window_start": experiment.window.start,
            "window_end": experiment.window.end,
            "timezone": CONFIG.timezone,
            "brokers": list(site.brokers),
            "tap": site.tap,
            "cluster": site.cluster,
            "clock_offset_ms": site.clock_offset_ms,
            "captures": [capture.name for capture in site.captures],
            "parts": list(site.parts),
        }
        for experiment, site in all_sites(SHOWN)
    ]


def compare_settings():
    """What comparisons depend on beside the data sets."""
    return {"baseline": CONFIG.baseline, "margin": CONFIG.report.margin, "share_over_ms": CONFIG.report.share_over_ms}


def compare_memory(wildcards, attempt):
    """Megabytes for what reads one site's data sets after the other, and keeps up to a million values of each metric, and what of them a pair has in common."""
    sizes = [site.unpacked / 1e6 for _, site in all_sites()]
    return int((1000 + 0.5 * max(sizes) + sum(min(2000, 1.2 * size) for size in sizes)) * attempt)


def report_settings():
    """What the report depends on beside the data sets."""
    return {
        "title": CONFIG.report.title,
        "timezone": CONFIG.timezone,
        "baseline": CONFIG.baseline,
        "margin": CONFIG.report.margin,
        "share_over_ms": CONFIG.report.share_over_ms,
        "events": [
            {"experiment": experiment.name, "at": event.at, "label": event.label}
            for experiment in CONFIG.experiments.values()
            for event in experiment.events
        ],
        "verification": verification(),
        "pseudonyms": CONFIG.anonymize,
    }


def total_memory(wildcards, attempt):
    """Megabytes for what reads the data sets of all sites: some hundred bytes of each packet."""
    return int((1000 + sum(site.unpacked for _, site in all_sites()) / 1e6) * attempt)


# verify


def verified_captures():
    """What was found in each capture that was decoded twice, in the order of experiments, sites and captures."""
    return [f"{VERIFIED}/{experiment.name}/{site.name}/{capture.key}.json" for experiment, site in all_sites() for capture in site.captures]


def verify_settings(wildcards):
    """The capture's size, whose packets to decode twice, and how many; None is all."""
    capture = CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture]
    return {"brokers": list(site_of(wildcards).brokers), "sample": CONFIG.sample, **size_of(capture)}


def capture_name(wildcards):
    """A capture's name as people know it."""
    return CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture].name


def verify_minutes(wildcards, attempt):
    """Time limit by what Wireshark has to dissect: of a sample, little."""
    return (
        int(10 + CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture].bytes / (5e7 if CONFIG.sample is None else 5e8))
        * attempt
    )


def verified_sites():
    """Experiment and site of each of `verified_captures`."""
    return [[experiment.name, site.name] for experiment, site in all_sites() for _ in site.captures]


def verification():
    """What `verify` found, for the report, if it did so since the newest capture was written. No input: the report must never ask for Wireshark."""
    newest = max(capture.modified for capture in CAPTURES.values())
    if published.state(Path(PLACED)) != HIDE.digest:
        return None  # it shows other names, and goes when the run begins
    if not os.path.exists(DIFFERENCES) or os.path.getmtime(DIFFERENCES) < newest:
        return None
    return {"table": DIFFERENCES, "digest": hashlib.sha256(Path(DIFFERENCES).read_bytes()).hexdigest()}


# choose_cases, write_excerpts


def case_settings(wildcards):
    """What a site's cases depend on beside its data sets."""
    return {"window": window_of(CONFIG.experiments[wildcards.experiment])}


def all_excerpts(wildcards):
    """The folders of all sites' excerpts."""
    refuse_excerpts(CONFIG)
    return [f"results/excerpts/{experiment.name}/{site.name}" for experiment, site in all_sites()]


def captures_with_cases(wildcards):
    """The captures that a site's excerpts are copied from, in the order in which `list_excerpts` names them."""
    refuse_excerpts(CONFIG)
    with open(checkpoints.list_excerpts.get().output.captures, encoding="utf-8") as listed:
        names = json.load(listed)[f"{wildcards.experiment}/{wildcards.site}"]
    captures = {capture.name: capture for capture in site_of(wildcards).captures}
    return [file_of(captures[name]) for name in names]


def refuse_excerpts(configuration):
    """End where names and addresses are to be hidden: copied packets would show them all."""
    if configuration.anonymize:
        sys.exit(
            "excerpts: refused because the configuration says `anonymize: true`. An excerpt holds packets as they were captured, with addresses, names and payload. "
            "Take `anonymize` out, or set it to false, for a run in a folder that you do not share."
        )


# costs


def costs_settings(wildcards):
    """Where jobs left their benchmarks, what each capture's job had to read, and where the table goes."""
    sizes = {f"{BENCHMARKS}/split_capture/{'/'.join(key)}.tsv": capture.bytes for key, capture in CAPTURES.items()}
    return {"benchmarks": BENCHMARKS, "sizes": sizes, "table": COSTS}


# bundle


@called_often
def capture_size(wildcards):
    """Size and date of a capture, as a job that reads no more of the configuration depends on them."""
    return size_of(CAPTURES[wildcards.experiment, wildcards.site, wildcards.capture])


def all_checksums():
    """Checksums of all captures, in the order of experiments, sites and captures. Among the working files: their paths name captures."""
    return [
        f"results/intermediate/checksums/{experiment.name}/{site.name}/{capture.key}.json"
        for experiment, site in all_sites(SHOWN)
        for capture in site.captures
    ]


def bundle_settings(wildcards):
    """What the bundle says beside results: captures by the names that outputs may show, in the order of their checksums, and the configuration as may be published."""
    captures = [
        {"experiment": experiment.name, "site": site.name, "capture": capture.name}
        for experiment, site in all_sites(SHOWN)
        for capture in site.captures
    ]
    return {"captures": captures, "settings": publishable(SHOWN), "lock": str(SCRIPTS.parents[1] / "requirements.txt")}


# doctor


def doctor_settings(wildcards):
    """What the doctor looks at: every site with its captures, the pins, and where results go."""
    sites = [
        {
            "experiment": experiment.name,
            "site": site.name,
            "window": window_of(experiment),
            "brokers": list(site.brokers),
            "decoder": site.decoder,
            "keys": site.tls_keylog is not None,
            "captures": [{"path": capture.path, "name": capture.name, "bytes": capture.bytes} for capture in site.captures],
        }
        for experiment, site in all_sites()
    ]
    return {"sites": sites, "timezone": CONFIG.timezone, "requirements": str(SCRIPTS.parents[1] / "requirements.in"), "results": PLACED}


# What a run says


def begin_results():
    """Let no result of a run that showed other names stay beside those of this one."""
    made, known = (
        {str(path) for job in jobs for path in [*job.output, *filter(None, [job.benchmark])]}
        for jobs in (workflow.dag.needrun_jobs(), workflow.dag.jobs)
    )
    written = [Path(COSTS), *(Path(str(pattern)) for rule in workflow.rules for pattern in rule.output)]
    places = {path.parts[1] for path in written if path.parts[0] == RESULTS}
    try:
        for line in published.begin(Path(RESULTS), HIDE.digest, places, made, known - made):
            print(line, flush=True)
    except UserError as fault:
        sys.exit(f"error: {fault}")


def show_progress():
    """Say now and then how far the run is, from now on. Of the captures, those count that are still to be read."""
    to_read = [tuple(job.wildcards) for job in workflow.dag.needrun_jobs() if job.rule.name == "split_capture"]
    told = progress.Progress({key: CAPTURES[key].bytes for key in to_read}, lambda line: print(line, file=sys.stderr, flush=True))
    told.watch()
    logger.addHandler(told)
    WATCHED.append(told)


def inventory():
    """One line about what there is to do."""
    counts = {"experiment": len(CONFIG.experiments), "site": len(all_sites()), "capture": len(CAPTURES)}
    size = sum(site.bytes for _, site in all_sites())
    return ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts.items()) + f", {size / 1e6:,.1f} MB"


def whereabouts():
    """Where the report is, if there is one: single files can be asked for, too. And which sites it has no figures of."""
    here = Path.cwd().samefile(workflow.basedir)
    found = {what: path for what, path in (("report", REPORT), ("verification", VERIFICATION), ("bundle", BUNDLE)) if os.path.exists(path)}
    if "bundle" in found and os.path.getmtime(BUNDLE) < os.path.getmtime(found.get("report", BUNDLE)):
        del found["bundle"]  # of an earlier report
    lines = [f"{what}: {path if here else os.path.abspath(path)}" for what, path in found.items()]
    empty = progress.outside_their_window(METRICS) if "all" in targets() else []
    return "\n".join([*empty, *lines]) or "done"


def next_steps():
    """What failed, where Snakemake's own lines have come to an end, and what to do about it."""
    if targets() == {"doctor"}:
        return "Each line above that begins with `problem` says what to do."
    return "\n".join(
        [
            *(line for told in WATCHED for line in told.failures()),
            "Something failed; the message stands above and in the log file named there. Mend it and run the same command again: what is done stays done.",
            "A capture that cannot be read fails alone: mend it or take it out of `captures`. With --keep-going the other captures and sites go on meanwhile.",
        ]
    )


def targets():
    """Names of the targets that were asked for."""
    return {target.name for target in workflow.dag.targetrules}
