rule embed_task:
    input:
        **large(
            audio=paths.task,
            student=inputs("embed_task", "student"),
            checkpoint=inputs("embed_task", "checkpoint"),
        ),
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
        gpu=min(1, experiment.config.runtime.gpus),
        mem_mb=growing(16_000),
        runtime=growing(240),
        untracked=untracked_options("embed_task"),
    params:
        inputs=input_options("student", "checkpoint"),
        options=options("embed_task"),
        code=code("embed_task"),
        content=content("embed_task"),
    message:
        "Embedding {wildcards.task} with {wildcards.model}"
    shell:
        "ssondo embed_task --audio {input.audio} {params.inputs} {params.options} {resources.untracked}"
        " --out {output.embeddings} --log {log}"


rule probe:
    input:
        **large(embeddings=paths.task_embeddings),
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
