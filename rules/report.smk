rule scores:
    input:
        experiment.targets.all_scores(),
    output:
        paths.table("scores.csv"),
    log:
        paths.log("scores"),
    conda:
        "../envs/ssondo.yaml"
    params:
        code=code("scores"),
    message:
        "Collecting the scores"
    shell:
        "ssondo scores --scores {input} --out {output} --log {log}"


rule table1:
    input:
        experiment.targets.table_scores("table1"),
    output:
        markdown=paths.table("table1.md"),
        csv=paths.table("table1.csv"),
        latex=paths.table("table1.tex"),
        figure=paths.table("table1.png"),
        svg=paths.table("table1.svg"),
    log:
        paths.log("table1"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("table1"),
        code=code("table1"),
        content=content("table1"),
    message:
        "Writing Table 1"
    shell:
        "ssondo table1 --scores {input} {params.options} --markdown {output.markdown} --csv {output.csv}"
        " --latex {output.latex} --figure {output.figure} --svg {output.svg} --log {log}"


rule table2:
    input:
        experiment.targets.table_scores("table2"),
    output:
        markdown=paths.table("table2.md"),
        csv=paths.table("table2.csv"),
        latex=paths.table("table2.tex"),
    log:
        paths.log("table2"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("table2"),
        code=code("table2"),
        content=content("table2"),
    message:
        "Writing Table 2"
    shell:
        "ssondo table2 --scores {input} {params.options} --markdown {output.markdown} --csv {output.csv}"
        " --latex {output.latex} --log {log}"


rule fig2:
    input:
        experiment.targets.table_scores("fig2"),
    output:
        markdown=paths.table("fig2.md"),
        csv=paths.table("fig2.csv"),
        png=paths.table("fig2.png"),
        svg=paths.table("fig2.svg"),
    log:
        paths.log("fig2"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("fig2"),
        code=code("fig2"),
        content=content("fig2"),
    message:
        "Drawing Fig. 2"
    shell:
        "ssondo fig2 --scores {input} {params.options} --markdown {output.markdown} --csv {output.csv}"
        " --png {output.png} --svg {output.svg} --log {log}"


rule report:
    input:
        scores=experiment.targets.all_scores(),
        clusters=experiment.targets.cluster_metrics(),
        histories=experiment.targets.histories(),
        availability=expand(f"{paths.availability}/availability.{{suffix}}", suffix=["json", "csv", "png"]),
    output:
        paths.table("report.html"),
    log:
        paths.log("report"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("report"),
        code=code("report"),
        content=content("report"),
    message:
        "Writing the report"
    shell:
        "ssondo report --scores {input.scores} {params.options} --out {output} --log {log}"
