rule distill:
    input:
        **large(
            clusters=inputs("distill", "clusters"),
            pretrained=inputs("distill", "pretrained"),
        ),
        audio=large_shards(paths.audio, "train"),
        embeddings=large_shards(paths.embeddings, "train"),
        eval_audio=large_shards(paths.audio, "eval"),
        eval_embeddings=large_shards(paths.embeddings, "eval"),
        inventory=expand(paths.audio_inventory, split=["train", "eval"]),
        embedding_inventory=expand(paths.embedding_inventory, split=["train", "eval"], allow_missing=True),
        segments=inputs("distill", "segments"),
        classes=inputs("distill", "classes"),
    output:
        student=f"{paths.distilled}/student.ckpt",
        digest=digest(f"{paths.distilled}/student.ckpt"),
        history=f"{paths.distilled}/history.csv",
        curves=f"{paths.distilled}/curves.png",
        events=f"{paths.distilled}/history.tfevents",
    log:
        paths.log("distill/{teacher}/{student}/{loss}-k{n_clusters}-seed{seed}"),
    benchmark:
        paths.benchmark("distill/{teacher}/{student}/{loss}-k{n_clusters}-seed{seed}")
    priority: FIRST
    conda:
        "../envs/ssondo.yaml"
    threads: 16
    resources:
        **training_resources(experiment.config),
        mem_mb=growing(training_memory_mb(experiment.config)),
        runtime=growing(2_880),
        untracked=untracked_options("distill"),
    params:
        inputs=input_options("clusters", "pretrained", "segments", "classes"),
        options=options("distill"),
        code=code("distill"),
        content=content("distill"),
    message:
        "Distilling {wildcards.teacher} into {wildcards.student} ({wildcards.loss}, k={wildcards.n_clusters}, seed {wildcards.seed})"
    shell:
        "exec ssondo launch --gpus {resources.gpu} --nodes {resources.nodes} --gres '{resources.gres}' --cpus {threads} --"
        " distill --audio {input.audio} --embeddings {input.embeddings} --eval-audio {input.eval_audio}"
        " --eval-embeddings {input.eval_embeddings} {params.inputs} {params.options} {resources.untracked}"
        " --out {output.student} --history {output.history} --curves {output.curves} --events {output.events} --log {log}"


rule supervise:
    input:
        **large(pretrained=inputs("supervise", "pretrained")),
        audio=large_shards(paths.audio, "train"),
        eval_audio=large_shards(paths.audio, "eval"),
        inventory=expand(paths.audio_inventory, split=["train", "eval"]),
        segments=every_shard(paths.segments, "train"),
        eval_segments=every_shard(paths.segments, "eval"),
        classes=paths.classes,
    output:
        student=f"{paths.supervised}/student.ckpt",
        digest=digest(f"{paths.supervised}/student.ckpt"),
        history=f"{paths.supervised}/history.csv",
        curves=f"{paths.supervised}/curves.png",
        events=f"{paths.supervised}/history.tfevents",
    log:
        paths.log("supervise/{student}/seed{seed}"),
    benchmark:
        paths.benchmark("supervise/{student}/seed{seed}")
    priority: NEXT
    conda:
        "../envs/ssondo.yaml"
    threads: 16
    resources:
        **training_resources(experiment.config),
        mem_mb=growing(training_memory_mb(experiment.config)),
        runtime=growing(2_880),
        untracked=untracked_options("supervise"),
    params:
        inputs=input_options("pretrained"),
        options=options("supervise"),
        code=code("supervise"),
        content=content("supervise"),
    message:
        "Training {wildcards.student} on labels (seed {wildcards.seed})"
    shell:
        "exec ssondo launch --gpus {resources.gpu} --nodes {resources.nodes} --gres '{resources.gres}' --cpus {threads} --"
        " supervise --audio {input.audio} --segments {input.segments} --classes {input.classes}"
        " --eval-audio {input.eval_audio} --eval-segments {input.eval_segments} {params.inputs} {params.options}"
        " {resources.untracked} --out {output.student} --history {output.history} --curves {output.curves}"
        " --events {output.events} --log {log}"


rule initialise:
    input:
        audio=ancient(inputs("initialise", "audio")),
        inventory=inputs("initialise", "inventory"),
    output:
        student=f"{paths.untrained}/student.ckpt",
        digest=digest(f"{paths.untrained}/student.ckpt"),
    log:
        paths.log("initialise/{student}/seed{seed}"),
    conda:
        "../envs/ssondo.yaml"
    params:
        inputs=input_options("audio"),
        options=options("initialise"),
        code=code("initialise"),
        content=content("initialise"),
    message:
        "Drawing random weights for {wildcards.student} (seed {wildcards.seed})"
    shell:
        "ssondo initialise {params.inputs} {params.options} --out {output.student} --log {log}"
