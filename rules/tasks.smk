# The archives of several data sets come from one server, so few downloads run at the same time.
workflow.register_resource("downloads", 2)


rule download:
    output:
        file=paths.archive,
        digest=digest(paths.archive),
    log:
        paths.log("download/{task}/{file}"),
    conda:
        "../envs/ssondo.yaml"
    resources:
        downloads=1,
        mem_mb=growing(1_000),
        runtime=growing(1_440),
        untracked=untracked_options("download"),
    # There is no code hash, because the content of an address does not depend on the code that retrieves it.
    params:
        options=options("download"),
    message:
        "Downloading {wildcards.file} of {wildcards.task}"
    shell:
        "ssondo download {params.options} {resources.untracked} --out {output.file} --log {log}"


rule prepare_task:
    input:
        **large(archives=inputs("prepare_task", "archives")),
    output:
        audio=paths.task,
        digest=digest(paths.task),
    log:
        paths.log("prepare_task/{task}"),
    benchmark:
        paths.benchmark("prepare_task/{task}")
    conda:
        "../envs/ssondo.yaml"
    threads: 4
    resources:
        mem_mb=growing(8_000),
        runtime=growing(480),
    params:
        options=options("prepare_task"),
        code=code("prepare_task"),
        content=content("prepare_task"),
    message:
        "Preparing the task {wildcards.task}"
    shell:
        "ssondo prepare_task {params.options} --n-workers {threads} --out {output.audio} --log {log}"
