# The archives of several data sets lie on one server.
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
        published=lambda wildcards: plan.probe.published(**wildcards),
    # No code: what is at an address does not depend on it.
    params:
        options=options("download"),
    message:
        "Downloading {wildcards.file} of {wildcards.task}"
    shell:
        "ssondo download {params.options} {resources.published} --out {output.file} --log {log}"


rule prepare_task:
    input:
        archives=lambda wildcards: ancient(plan.probe.archives(wildcards.task)),
        digests=lambda wildcards: [digest(path) for path in plan.probe.archives(wildcards.task)],
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


rule embed_task:
    input:
        audio=ancient(paths.task),
        digest=digest(paths.task),
        student=lambda wildcards: ancient(plan.probe.model_inputs(wildcards.model)["student"]),
        checkpoint=lambda wildcards: ancient(plan.probe.model_inputs(wildcards.model)["checkpoint"]),
        digests=lambda wildcards: [
            digest(p) for found in plan.probe.model_inputs(wildcards.model).values() for p in found
        ],
    output:
        embeddings=paths.task_embeddings,
        digest=digest(paths.task_embeddings),
    log:
        paths.log("embed_task/{model}/{task}"),
    benchmark:
        paths.benchmark("embed_task/{model}/{task}")
    conda:
        "../envs/ssondo.yaml"
    threads: 8
    resources:
        gpu=min(1, plan.config.runtime.gpus),
        batch_size=plan.config.runtime.embed_batch_size,
        mem_mb=growing(16_000),
        runtime=growing(240),
    params:
        options=options("embed_task"),
        code=code("embed_task"),
        content=content("embed_task"),
        weights=lambda wildcards, input: (
            f"--student {input.student}"
            if input.student
            else (f"--checkpoint {input.checkpoint}" if input.checkpoint else "")
        ),
    message:
        "Embedding {wildcards.task} with {wildcards.model}"
    shell:
        "ssondo embed_task --audio {input.audio} {params.weights} {params.options} --batch-size {resources.batch_size} --out {output.embeddings} --log {log}"


rule probe:
    input:
        embeddings=ancient(paths.task_embeddings),
        digest=digest(paths.task_embeddings),
    output:
        paths.scores,
    log:
        paths.log("probe/{model}/{task}"),
    benchmark:
        paths.benchmark("probe/{model}/{task}")
    conda:
        "../envs/ssondo.yaml"
    threads: 2
    resources:
        mem_mb=growing(8_000),
        runtime=growing(60),
    params:
        options=options("probe"),
        code=code("probe"),
    message:
        "Scoring {wildcards.model} on {wildcards.task}"
    shell:
        "ssondo probe --embeddings {input.embeddings} {params.options} --out {output} --log {log}"
