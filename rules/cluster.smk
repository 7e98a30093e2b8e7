rule cluster:
    input:
        train=large_shards(paths.embeddings, "train"),
        eval=large_shards(paths.embeddings, "eval"),
        inventory=expand(paths.embedding_inventory, split=["train", "eval"], allow_missing=True),
    output:
        clusters=paths.clusters,
        digest=digest(paths.clusters),
        metrics=f"{paths.clusters_folder}/metrics.json",
        sizes=f"{paths.clusters_folder}/sizes.png",
        tsne=f"{paths.clusters_folder}/tsne.png",
    log:
        paths.log("cluster/{teacher}/k{n_clusters}"),
    benchmark:
        paths.benchmark("cluster/{teacher}/k{n_clusters}")
    priority: FIRST
    conda:
        "../envs/ssondo.yaml"
    threads: 8
    resources:
        mem_mb=growing(2 * experiment.config.cluster.memory_mb),
        runtime=growing(240),
    params:
        options=options("cluster"),
        code=code("cluster"),
    message:
        "Clustering the embeddings of {wildcards.teacher} into {wildcards.n_clusters} clusters"
    shell:
        "ssondo cluster --train {input.train} --eval {input.eval} {params.options} --out {output.clusters}"
        " --metrics {output.metrics} --sizes-plot {output.sizes} --tsne-plot {output.tsne} --log {log}"
