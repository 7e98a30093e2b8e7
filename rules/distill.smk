# How training uses the machine is no provenance, so it is a resource and not a param.
rule distill:
    input:
        audio=ancient(every_shard(paths.audio, "train")),
        embeddings=ancient(every_shard(paths.embeddings, "train")),
        eval_audio=ancient(every_shard(paths.audio, "eval")),
        eval_embeddings=ancient(every_shard(paths.embeddings, "eval")),
        inventory=expand(paths.audio_inventory, split=["train", "eval"]),
        embedding_inventory=expand(paths.embedding_inventory, split=["train", "eval"], allow_missing=True),
        clusters=lambda wildcards: ancient(plan.distill.cluster_inputs(wildcards.teacher, wildcards.n_clusters)),
        clusters_digest=lambda wildcards: [
            digest(path) for path in plan.distill.cluster_inputs(wildcards.teacher, wildcards.n_clusters)
        ],
        pretrained=lambda wildcards: ancient(plan.distill.initial_weights(wildcards.student)),
        init_digest=lambda wildcards: [digest(path) for path in plan.distill.initial_weights(wildcards.student)],
        segments=plan.distill.label_inputs()["segments"],
        classes=plan.distill.label_inputs()["classes"],
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
        **plan.distill.training_nodes(),
        machine=plan.distill.training_machine(),
        mem_mb=growing(plan.distill.training_memory_mb()),
        runtime=growing(2_880),
    params:
        options=options("distill"),
        code=code("distill"),
        content=content("distill"),
        clusters=lambda wildcards, input: f"--clusters {input.clusters}" if input.clusters else "",
        labels=lambda wildcards, input: (
            f"--segments {input.segments} --classes {input.classes}" if input.classes else ""
        ),
        pretrained=lambda wildcards, input: f"--pretrained {input.pretrained}" if input.pretrained else "",
    message:
        "Distilling {wildcards.teacher} into {wildcards.student} ({wildcards.loss}, k={wildcards.n_clusters}, seed {wildcards.seed})"
    shell:
        "exec python -m ssondo.workflow.launch --gpus {resources.gpu} --nodes {resources.nodes} --gres '{resources.gres}' --cpus {threads}"
        " distill --audio {input.audio} --embeddings {input.embeddings} --eval-audio {input.eval_audio}"
        " --eval-embeddings {input.eval_embeddings} {params.clusters} {params.pretrained} {params.labels} {params.options}"
        " {resources.machine} --out {output.student} --history {output.history} --curves {output.curves}"
        " --events {output.events} --log {log}"


rule supervise:
    input:
        audio=ancient(every_shard(paths.audio, "train")),
        eval_audio=ancient(every_shard(paths.audio, "eval")),
        inventory=expand(paths.audio_inventory, split=["train", "eval"]),
        segments=every_shard(paths.segments, "train"),
        eval_segments=every_shard(paths.segments, "eval"),
        classes=paths.classes,
        pretrained=lambda wildcards: ancient(plan.distill.initial_weights(wildcards.student)),
        init_digest=lambda wildcards: [digest(path) for path in plan.distill.initial_weights(wildcards.student)],
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
        **plan.distill.training_nodes(),
        machine=plan.distill.training_machine(),
        mem_mb=growing(plan.distill.training_memory_mb()),
        runtime=growing(2_880),
    params:
        options=options("supervise"),
        code=code("supervise"),
        content=content("supervise"),
        pretrained=lambda wildcards, input: f"--pretrained {input.pretrained}" if input.pretrained else "",
    message:
        "Training {wildcards.student} on labels (seed {wildcards.seed})"
    shell:
        "exec python -m ssondo.workflow.launch --gpus {resources.gpu} --nodes {resources.nodes} --gres '{resources.gres}' --cpus {threads}"
        " supervise --audio {input.audio} --segments {input.segments} --classes {input.classes}"
        " --eval-audio {input.eval_audio} --eval-segments {input.eval_segments} {params.pretrained} {params.options}"
        " {resources.machine} --out {output.student} --history {output.history} --curves {output.curves}"
        " --events {output.events} --log {log}"


rule initialise:
    input:
        audio=ancient(plan.distill.measured_audio()),
        inventory=expand(paths.audio_inventory, split="train") if plan.distill.measured_audio() else [],
    output:
        student=f"{paths.untrained}/student.ckpt",
        digest=digest(f"{paths.untrained}/student.ckpt"),
    log:
        paths.log("initialise/{student}/seed{seed}"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("initialise"),
        code=code("initialise"),
        content=content("initialise"),
        audio=lambda wildcards, input: f"--audio {input.audio}" if input.audio else "",
    message:
        "Drawing random weights for {wildcards.student} (seed {wildcards.seed})"
    shell:
        "ssondo initialise {params.audio} {params.options} --out {output.student} --log {log}"
