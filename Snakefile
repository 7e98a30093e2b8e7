from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/audioset.smk"
include: "rules/teachers.smk"
include: "rules/cluster.smk"
include: "rules/distill.smk"
include: "rules/tasks.smk"
include: "rules/probe.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        expand("{table}.md", table=[paths.table(name) for name in experiment.targets.tables]),
        paths.table("scores.csv"),
        paths.table("report.html"),
        rules.availability.output,
        ancient(experiment.targets.all_shards()),


limit_attempts(workflow.rules, failures)
