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
        "Choosing the contents of the demo's clips"
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
        "Listing the files of the folder as clips"
    shell:
        "ssondo list_folder {params.options} --out-train {output.train} --out-eval {output.eval} --log {log}"


rule index:
    input:
        inputs("index", "lists"),
    output:
        train=every_shard(paths.segments, "train"),
        eval=every_shard(paths.segments, "eval"),
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
        folder=lambda wildcards, output: Path(output.summary).parent,
        options=options("index"),
        code=code("index"),
        content=content("index"),
    message:
        "Distributing the segments over the shards"
    shell:
        "ssondo index {params.options} --out {params.folder} --log {log}"


rule locate:
    input:
        train=every_shard(paths.segments, "train"),
        eval=every_shard(paths.segments, "eval"),
    output:
        train=every_shard(paths.located, "train"),
        eval=every_shard(paths.located, "eval"),
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
        folder=lambda wildcards, output: Path(output.summary).parent,
        options=options("locate"),
        code=code("locate"),
        content=content("locate"),
    message:
        "Searching the local copy for the clips"
    shell:
        "ssondo locate {params.options} --out {params.folder} --log {log}"


rule fetch:
    input:
        segments=paths.segments,
        located=inputs("fetch", "located"),
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
        untracked=untracked_options("fetch"),
    params:
        inputs=input_options("located"),
        options=options("fetch"),
        code=code("fetch"),
        content=content("fetch"),
    message:
        "Fetching the clips of {wildcards.split}-{wildcards.shard}"
    shell:
        "ssondo fetch --segments {input.segments} {params.inputs} {params.options} {resources.untracked}"
        " --n-workers {threads} --out {output.audio} --log {log}"


rule resample:
    input:
        **large(audio=paths.fetched),
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
        **large(shards=lambda wildcards: paths.shard_paths(wildcards.stage, wildcards.split)),
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
        **large(shards=[*paths.shard_paths("audio", "train"), *paths.shard_paths("audio", "eval")]),
        segments=every_shard(paths.segments, "train"),
        eval_segments=every_shard(paths.segments, "eval"),
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
        "Counting the available clips"
    shell:
        "ssondo availability {params.options} --out {params.folder} --log {log}"
