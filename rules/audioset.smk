rule compose:
    output:
        train=f"{paths.corpus}/train.csv",
        eval=f"{paths.corpus}/eval.csv",
        classes=f"{paths.corpus}/classes.csv",
    log:
        paths.log("compose"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("compose"),
        code=code("compose"),
    message:
        "Choosing what the demo's corpus plays"
    shell:
        "ssondo compose {params.options} --train {output.train} --eval {output.eval}"
        " --classes {output.classes} --log {log}"


rule list_folder:
    output:
        train=f"{paths.listed}/train.csv",
        eval=f"{paths.listed}/eval.csv",
    log:
        paths.log("list_folder"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("list_folder"),
        code=code("list_folder"),
        content=content("list_folder"),
    message:
        "Listing the folder's files as clips"
    shell:
        "ssondo list_folder {params.options} --out-train {output.train} --out-eval {output.eval} --log {log}"


rule index:
    input:
        plan.audioset.corpus_lists(),
    output:
        train=expand(paths.segments, split="train", shard=plan.audioset.shards("train")),
        eval=expand(paths.segments, split="eval", shard=plan.audioset.shards("eval")),
        classes=paths.classes,
        summary=f"{paths.index}/summary.json",
    log:
        paths.log("index"),
    benchmark:
        paths.benchmark("index/all")
    conda:
        "../envs/ssondo.yaml"
    resources:
        mem_mb=growing(4_000),
        runtime=growing(60),
    params:
        folder=lambda wildcards, output: Path(output.classes).parent,
        options=options("index"),
        code=code("index"),
        content=content("index"),
    message:
        "Sorting segments into shards"
    shell:
        "ssondo index {params.options} --out {params.folder} --log {log}"


rule locate:
    input:
        expand(paths.segments, split="train", shard=plan.audioset.shards("train")),
        expand(paths.segments, split="eval", shard=plan.audioset.shards("eval")),
    output:
        train=expand(paths.located, split="train", shard=plan.audioset.shards("train")),
        eval=expand(paths.located, split="eval", shard=plan.audioset.shards("eval")),
        missing=f"{paths.located_folder}/missing.csv",
        summary=f"{paths.located_folder}/summary.json",
    log:
        paths.log("locate"),
    benchmark:
        paths.benchmark("locate/all")
    conda:
        "../envs/ssondo.yaml"
    resources:
        mem_mb=growing(6_000),
        runtime=growing(720),
    params:
        folder=lambda wildcards, output: Path(output.missing).parent,
        options=options("locate"),
        code=code("locate"),
        content=content("locate"),
    message:
        "Finding the clips in the copy that is there"
    shell:
        "ssondo locate {params.options} --out {params.folder} --log {log}"


rule fetch:
    input:
        segments=paths.segments,
        located=paths.located if plan.audioset.locates else [],
    output:
        audio=paths.fetched,
        digest=digest(paths.fetched),
    log:
        paths.log("fetch/{split}-{shard}"),
    benchmark:
        paths.benchmark("fetch/{split}-{shard}")
    priority: FIRST
    conda:
        "../envs/ssondo.yaml"
    threads: 1
    resources:
        mem_mb=growing(2_000),
        runtime=growing(1_440),
        fetch_jobs=1,
        manner=plan.audioset.fetch_manner(),
    params:
        located=f"--located {paths.located}" if plan.audioset.locates else "",
        options=options("fetch"),
        code=code("fetch"),
        content=content("fetch"),
    message:
        "Fetching the clips of {wildcards.split}-{wildcards.shard}"
    shell:
        "ssondo fetch --segments {input.segments} {params.located} {params.options} {resources.manner} --n-workers {threads} --out {output.audio} --log {log}"


rule resample:
    input:
        audio=ancient(paths.fetched),
        digest=digest(paths.fetched),
    output:
        audio=paths.audio,
        digest=digest(paths.audio),
    log:
        paths.log("resample/{split}-{shard}"),
    benchmark:
        paths.benchmark("resample/{split}-{shard}")
    priority: FIRST
    conda:
        "../envs/ssondo.yaml"
    threads: 4
    resources:
        mem_mb=growing(4_000),
        runtime=growing(60),
    params:
        options=options("resample"),
        code=code("resample"),
    message:
        "Resampling {wildcards.split}-{wildcards.shard}"
    shell:
        "ssondo resample --audio {input.audio} {params.options} --n-workers {threads} --out {output.audio} --log {log}"


rule inventory:
    input:
        shards=lambda wildcards: ancient(plan.audioset.shard_paths(wildcards.stage, wildcards.split)),
        digests=lambda wildcards: [digest(path) for path in plan.audioset.shard_paths(wildcards.stage, wildcards.split)],
    output:
        paths.inventory,
    log:
        paths.log("inventory/{stage}-{split}"),
    priority: FIRST
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("inventory"),
        code=code("inventory"),
        content=content("inventory"),
    message:
        "Counting the clips of {wildcards.stage}, {wildcards.split}"
    shell:
        "ssondo inventory --shards {input.shards} {params.options} --out {output} --log {log}"


rule availability:
    input:
        shards=ancient([path for split in ("train", "eval") for path in plan.audioset.shard_paths("audio", split)]),
        digests=[digest(path) for split in ("train", "eval") for path in plan.audioset.shard_paths("audio", split)],
        segments=expand(paths.segments, split="train", shard=plan.audioset.shards("train")),
        eval_segments=expand(paths.segments, split="eval", shard=plan.audioset.shards("eval")),
        classes=paths.classes,
    output:
        expand(f"{paths.availability}/availability.{{suffix}}", suffix=["json", "md", "csv", "png"]),
        expand(f"{paths.availability}/available-{{split}}.txt", split=["train", "eval"]),
    log:
        paths.log("availability"),
    conda:
        "../envs/ssondo.yaml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        options=options("availability"),
        code=code("availability"),
    message:
        "Counting what there is of the corpus"
    shell:
        "ssondo availability {params.options} --out {params.folder} --log {log}"
