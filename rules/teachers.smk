rule checkpoint:
    output:
        file=paths.checkpoint,
        digest=digest(paths.checkpoint),
    log:
        paths.log("checkpoint/{checkpoint}/{file}"),
    conda:
        "../envs/ssondo.yaml"
    resources:
        mem_mb=growing(2_000),
        runtime=growing(120),
        untracked=untracked_options("checkpoint"),
    params:
        options=options("checkpoint"),
        code=code("checkpoint"),
        content=content("checkpoint"),
    message:
        "Getting the weights {wildcards.checkpoint}"
    shell:
        "ssondo checkpoint {params.options} {resources.untracked} --out {output.file} --log {log}"


rule embed:
    input:
        **large(audio=paths.audio, checkpoint=inputs("embed", "checkpoint")),
    output:
        embeddings=paths.embeddings,
        digest=digest(paths.embeddings),
    log:
        paths.log("embed/{teacher}/{split}-{shard}"),
    benchmark:
        paths.benchmark("embed/{teacher}/{split}-{shard}")
    priority: FIRST
    conda:
        "../envs/ssondo.yaml"
    threads: 8
    resources:
        gpu=min(1, experiment.config.runtime.gpus),
        mem_mb=growing(16_000),
        runtime=growing(120),
        untracked=untracked_options("embed"),
    params:
        inputs=input_options("checkpoint"),
        options=options("embed"),
        code=code("embed"),
        content=content("embed"),
    message:
        "Embedding {wildcards.split}-{wildcards.shard} with {wildcards.teacher}"
    shell:
        "ssondo embed --audio {input.audio} {params.inputs} {params.options} {resources.untracked}"
        " --out {output.embeddings} --log {log}"
