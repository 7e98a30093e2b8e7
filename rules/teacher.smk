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
        expected=lambda wildcards: plan.teacher.expected(**wildcards),
    params:
        options=options("checkpoint"),
        code=code("checkpoint"),
        content=content("checkpoint"),
    message:
        "Getting the weights {wildcards.checkpoint}"
    shell:
        "ssondo checkpoint {params.options} {resources.expected} --out {output.file} --log {log}"


rule embed:
    input:
        audio=ancient(paths.audio),
        digest=digest(paths.audio),
        checkpoint=lambda wildcards: ancient(plan.teacher.checkpoint(f"teacher-{wildcards.teacher}")),
        checkpoint_digest=lambda wildcards: [
            digest(path) for path in plan.teacher.checkpoint(f"teacher-{wildcards.teacher}")
        ],
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
        gpu=min(1, plan.config.runtime.gpus),
        batch_size=plan.config.runtime.embed_batch_size,
        mem_mb=growing(16_000),
        runtime=growing(120),
    params:
        options=options("embed"),
        code=code("embed"),
        content=content("embed"),
        weights=lambda wildcards, input: f"--checkpoint {input.checkpoint}" if input.checkpoint else "",
    message:
        "Embedding {wildcards.split}-{wildcards.shard} with {wildcards.teacher}"
    shell:
        "ssondo embed --audio {input.audio} {params.weights} {params.options} --batch-size {resources.batch_size} --out {output.embeddings} --log {log}"
